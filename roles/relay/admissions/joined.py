"""A tailscaled of our own on the relay's host, joined to the tailnet whose nodes it tells.

It carries no traffic: it runs in userspace, as a user that is there only while it runs, and changes
no route, name or packet filter of the host. Another tailscaled of the host is not touched.
"""

from __future__ import annotations

from artefacts.programs import TAILSCALED
from artefacts.shipment import Shipment
from engine.facts import Ask, Facts, asked
from engine.render import render
from engine.resource import UNITS, Absent, Command, File, Resource, Service, Symlink, Tree
from engine.scripts import script
from inventory import tailscaled
from inventory.model import Host, Site
from roles import paths
from roles.relay import local_tailscaled
from roles.relay.contract import Admitting, Inquiry

_UNIT_FILE = f"{UNITS}/{tailscaled.UNIT}"
_TREE = f"{paths.OPT}/tailscaled"
# systemd keeps the state of a service without a user of its own in the second.
_STATE = (f"/var/lib/{tailscaled.NAME}", f"/var/lib/private/{tailscaled.NAME}")
# In memory, in the agent's folder, which is root's. The program that joins removes it.
_AUTH_KEY = "/run/derpfleet/tailscaled.key"
_CALL = (tailscaled.PROGRAM, f"--socket={tailscaled.SOCKET}")

KNOWN_BY: tuple[str, ...] = (_UNIT_FILE,)


def admitting(host: Host, site: Site, facts: Facts, ship: Shipment) -> Admitting:
    """Return derper's flags, and the tailscaled, joined.

    Its auth key is sent only while it has yet to join.
    """
    release = ship.tailscaled_release
    assert release is not None  # noqa: S101 - make_shipment makes it where we keep a tailscaled
    tree = Tree(path=_TREE, archive=release.path)
    program = f"{_TREE}/{TAILSCALED.program}"
    link = Symlink(path=tailscaled.PROGRAM, target=program, needs=(tree.id,))
    unit = File(
        path=_UNIT_FILE,
        content=render(
            "tailscaled.service.j2",
            name=tailscaled.NAME,
            group=paths.USER,
            program=program,
            socket=tailscaled.SOCKET,
        ),
    )
    started = (link.id, f"group:{paths.USER}")
    service = Service(unit=tailscaled.UNIT, restart_on=(unit.id, tree.id), needs=started)
    secret = ship.secrets.get(host.relay.tailscaled.auth_key or "")
    key = [] if secret is None else [File(path=_AUTH_KEY, content=secret, mode="0600", secret=True)]
    question = (facts.python_executable, *_question(host, site))
    join = Command(
        title="tailnet joined",
        argv=(*question, f"derp-{host.name}", _AUTH_KEY),
        unless=question,
        needs=(service.id, *(file.id for file in key)),
    )
    resources = (tree, link, unit, service, *key, join)
    return Admitting(flags=local_tailscaled.flags(tailscaled.SOCKET), resources=resources)


def _question(host: Host, site: Site) -> tuple[str, ...]:
    """Return the question whether it has joined, as the words behind `python3`."""
    server = host.relay.tailscaled.login_server or site.control.url or tailscaled.TAILSCALES
    places = (tailscaled.PROGRAM, tailscaled.SOCKET, _STATE[0])
    return ("-I", "-c", script("join_tailnet"), *places, server.rstrip("/"))


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the tailscaled, logged out after `needs` and stopped, and the removal of its files.

    Where the login server does not answer, its list keeps a node that is offline for ever.
    """
    is_out = '! "$0" "$1" status --json --peers=false 2>/dev/null | grep -q \'"BackendState": "Running"\''
    leave = f'timeout 20 "$0" "$1" logout || systemctl stop {tailscaled.UNIT}'
    left = Command(
        title="tailnet left",
        argv=("sh", "-c", leave, *_CALL),
        unless=("sh", "-c", is_out, *_CALL),
        needs=needs,
    )
    stopped = Service(unit=tailscaled.UNIT, enabled=False, running=False, needs=(left.id,))
    files = (_AUTH_KEY, _UNIT_FILE, tailscaled.PROGRAM, _TREE, *_STATE)
    return [left, stopped, *(Absent(path=path, needs=(stopped.id,)) for path in files)]


def ask(host: Host, site: Site) -> Ask:
    """Return the questions whether it has joined, and whether it answers."""
    state = Ask(commands={tailscaled.STATE: (host.ssh.python, *_question(host, site))})
    return asked(state, local_tailscaled.ask(host, tailscaled.SOCKET))


def inquiry(host: Host, site: Site, key: str) -> Inquiry:
    """Return the question that the relay asks, about that key."""
    return local_tailscaled.inquiry(tailscaled.SOCKET, key)


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return a sentence if there is no tailscaled for this machine."""
    if facts.arch in TAILSCALED.architectures:
        return []
    return [
        f"{host.name} is a machine of the kind {facts.arch}, and our tailscaled is built for "
        f"{' and '.join(TAILSCALED.architectures)} only: install one yourself, and take "
        f"hosts.{host.name}.relay.tailscaled.manage out."
    ]


def warnings(host: Host, facts: Facts) -> list[str]:
    """Return a sentence if it knows no node, or will not for long."""
    return local_tailscaled.warnings(facts)
