"""A tailscaled of our own on the relay's host, joined to the tailnet whose nodes it tells.

It carries no traffic: it runs in userspace, as a user that is there only while it runs, and changes
no route, name or packet filter of the host. Another tailscaled of the host is not touched.
"""

from __future__ import annotations

from artefacts.programs import TAILSCALED
from artefacts.shipment import Shipment
from engine.facts import Ask, Facts, asked
from engine.render import render
from engine.resource import UNITS, Absent, Command, Directory, File, Resource, Service, Symlink, Tree
from engine.scripts import script
from inventory import tailscaled
from inventory.model import Host, Site
from roles import paths, trees
from roles.relay import local_tailscaled
from roles.relay.contract import Admitting, Inquiry

_UNIT_FILE = f"{UNITS}/{tailscaled.UNIT}"
_RELEASES = f"{paths.OPT}/tailscaled-releases"
_TREE_OF_OLD = f"{paths.OPT}/tailscaled"  # until each release had a folder of its own
# systemd keeps the state of a service without a user of its own in the second.
_STATE = (f"/var/lib/{tailscaled.NAME}", f"/var/lib/private/{tailscaled.NAME}")
# In memory, in the agent's folder, which is root's. The program that joins removes it.
_AUTH_KEY = "/run/derpfleet/tailscaled.key"
_CALL = (tailscaled.PROGRAM, f"--socket={tailscaled.SOCKET}")
# It may have been stopped, and answers a moment after its start.
_LEAVE = """
systemctl start "$0"
for try in 1 2 3; do timeout 20 "$1" "$2" logout && break; sleep 1; done
systemctl stop "$0"
rm -rf "$3" "$4"
"""

KNOWN_BY: tuple[str, ...] = (_UNIT_FILE,)


def admitting(host: Host, site: Site, facts: Facts, ship: Shipment) -> Admitting:
    """Return derper's flags, and the tailscaled, joined.

    Its auth key is sent only while it has yet to join.
    """
    release = ship.tailscaled_release
    assert release is not None  # noqa: S101 - make_shipment makes it where we keep a tailscaled
    tree = Tree(path=f"{_RELEASES}/{release.id}", archive=release.path)
    program = f"{tree.path}/{TAILSCALED.program}"
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
    resources = (Directory(path=_RELEASES), tree, link, unit, service, *key, join)
    return Admitting(
        flags=local_tailscaled.flags(tailscaled.SOCKET),
        resources=(*resources, *_outdated(facts, tree.path, service.id)),
    )


def _outdated(facts: Facts, wanted: str, service: str) -> list[Absent]:
    """Return the removal of the other releases, once the service runs from the one at `wanted`."""
    releases = trees.outdated(facts, _RELEASES, wanted, needs=(service,))
    if _TREE_OF_OLD not in facts.files:
        return [*releases]
    return [*releases, Absent(path=_TREE_OF_OLD, needs=(service,), unless_kept=_TREE_OF_OLD)]


def _question(host: Host, site: Site) -> tuple[str, ...]:
    """Return the question whether it has joined, as the words behind `python3`."""
    server = host.relay.tailscaled.login_server or site.control.url or tailscaled.TAILSCALES
    places = (tailscaled.PROGRAM, tailscaled.SOCKET, _STATE[0])
    return ("-I", "-c", script("join_tailnet"), *places, server.rstrip("/"))


def absent(*, needs: tuple[str, ...] = (), unless_kept: bool = False) -> list[Resource]:
    """Return the tailscaled, logged out after `needs` and stopped, and the removal of its files.

    With `unless_kept` it is only stopped while a generation has a release of it: it could not join
    again, as its auth key may be used up. Where the login server does not answer, its list keeps a
    node that is offline for ever.
    """
    kept = _RELEASES if unless_kept else ""
    left = Command(
        title="tailnet left",
        argv=("sh", "-c", _LEAVE, tailscaled.UNIT, *_CALL, *_STATE),
        unless=("sh", "-c", 'test ! -e "$0" && test ! -e "$1"', *_STATE),
        unless_kept=kept,
        needs=needs,
    )
    stopped = Service(unit=tailscaled.UNIT, enabled=False, running=False, needs=(left.id,))
    files = (_AUTH_KEY, _UNIT_FILE, tailscaled.PROGRAM, _RELEASES, _TREE_OF_OLD)
    gone = [Absent(path=path, unless_kept=kept, needs=(stopped.id,)) for path in files]
    return [left, stopped, *gone]


def ask(host: Host, site: Site) -> Ask:
    """Return the questions whether it has joined, whether it answers, and for its releases."""
    state = Ask(files=(_TREE_OF_OLD,), commands={tailscaled.STATE: (host.ssh.python, *_question(host, site))})
    return asked(trees.ask(_RELEASES), state, local_tailscaled.ask(host, tailscaled.SOCKET))


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
