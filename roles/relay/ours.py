"""Our relay as a systemd service: a release directory, sockets that systemd holds, a user that may do nothing else."""

from __future__ import annotations

from artefacts.programs import PYTHON_FLOOR
from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.render import render
from engine.resource import Absent, Command, Directory, File, Resource, Service, Symlink, Tree
from inventory.model import Host, Site
from roles import paths
from roles.admission import mesh_key_id, verify_url
from roles.contract import Question
from roles.relay.contract import Given, health
from roles.wiring import LOOPBACK, Wiring

_UNIT_FILE = f"{paths.SYSTEMD}/{paths.SERVICE}"
_SOCKET_FILE = f"{paths.SYSTEMD}/{paths.SOCKET}"

ASK = Ask(files=(f"{paths.RELEASES}/*",))
RUNNING = f"service:{paths.SERVICE}"
RELOAD: tuple[str, ...] = ("systemctl", "try-reload-or-restart", paths.SERVICE)  # it keeps its clients
WITHDRAWN = Question(("systemctl", "is-enabled", paths.SERVICE), says="disabled")


def ready_to_start(host: Host, ship: Shipment) -> tuple[str, ...]:
    """Return nothing to wait for: the former relay stops when this one is about to start."""
    return ()


def resources(host: Host, site: Site, wiring: Wiring, facts: Facts, given: Given) -> list[Resource]:
    release = given.ship.relay_release
    assert release is not None  # noqa: S101 - make_shipment builds it for this flavour
    path = f"{paths.RELEASES}/{release.id}"
    tree = Tree(path=path, archive=release.path)
    # The service cannot write there, and without compiled modules it takes twice as long to start.
    argv = (facts.python_executable, "-I", "-m", "compileall", "-q", path)
    compiled = Command(title=f"compiled {release.id}", argv=argv, creates=f"{path}/relay/__pycache__", on_change=(tree.id,))
    link = Symlink(path=paths.CURRENT, target=path, needs=(compiled.id,))
    streams, datagrams = _streams(host, wiring, facts), _everywhere(host.ports.stun, facts)
    sockets = File(path=_SOCKET_FILE, content=render("relay.socket.j2", host=host, streams=streams, datagrams=datagrams))
    unit = File(
        path=_UNIT_FILE,
        content=render(
            "relay.service.j2",
            host=host,
            python=facts.python_executable,
            current=paths.CURRENT,
            socket=paths.SOCKET,
            user=paths.USER,
            flags=flags(host, site, wiring, given.front_at),
        ),
    )
    socket = Service(
        unit=paths.SOCKET,
        restart_on=(sockets.id,),
        needs=(unit.id, *(resource.id for resource in given.former), *given.listens_after),
    )
    service = Service(
        unit=paths.SERVICE,
        restart_on=(unit.id, link.id, socket.id, mesh_key_id(host, site)),
        healthy=(health(host, wiring),),
        needs=(given.key,),
    )
    return [
        Directory(path=paths.RELEASES),
        tree,
        compiled,
        link,
        sockets,
        unit,
        *given.former,
        socket,
        service,
        *_outdated(facts, path, service.id),
    ]


def _outdated(facts: Facts, kept: str, after: str) -> list[Resource]:
    """Former releases go when the new one has proved to start."""
    there = sorted(path for path in facts.files if path.startswith(f"{paths.RELEASES}/") and path != kept)
    return [Absent(path=path, needs=(after,)) for path in there]


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return what takes the units and the releases away."""
    return [
        Service(unit=paths.SERVICE, enabled=False, running=False, needs=needs),
        Service(unit=paths.SOCKET, enabled=False, running=False, needs=needs),
        Absent(path=_UNIT_FILE, needs=(f"service:{paths.SERVICE}",)),
        Absent(path=_SOCKET_FILE, needs=(f"service:{paths.SOCKET}",)),
        Absent(path=paths.CURRENT, needs=(f"service:{paths.SERVICE}",)),
        Absent(path=paths.RELEASES, needs=(f"service:{paths.SERVICE}",)),
    ]


def stopped() -> list[Resource]:
    """Return both units, disabled and stopped."""
    return [Service(unit=unit, enabled=False, running=False) for unit in (paths.SOCKET, paths.SERVICE)]


def refusals(host: Host, site: Site, wiring: Wiring, facts: Facts) -> list[str]:
    """Return a sentence when the host's Python is too old."""
    if facts.python[:2] >= PYTHON_FLOOR:
        return []
    return [
        f"{host.name} has Python {'.'.join(map(str, facts.python))}, and our relay needs {'.'.join(map(str, PYTHON_FLOOR))}: "
        f"set hosts.{host.name}.flavour to docker, or hosts.{host.name}.ssh.python to a newer one."
    ]


def _streams(host: Host, wiring: Wiring, facts: Facts) -> list[str]:
    if wiring.relay.address:
        return [str(wiring.relay)]
    numbers = [wiring.relay.port, *([host.ports.http] if wiring.http_by == "relay" else [])]
    return [place for number in numbers for place in _everywhere(number, facts)]


def _everywhere(port: int, facts: Facts) -> list[str]:
    """A socket for each family: on one for both, clients of IPv4 would have addresses of IPv6."""
    return [f"0.0.0.0:{port}", *([f"[::]:{port}"] if facts.has_ipv6 else [])]


def flags(host: Host, site: Site, wiring: Wiring, front_at: str) -> list[str]:
    """The relay's command line, one flag with its value a line."""
    found = [f"-c {paths.KEY}", f"-hostname {host.domain}", f"-stun-port {host.ports.stun}"]
    found += [f"-a {wiring.relay}", f"-http-port {wiring.relay_http_port}"]
    if wiring.relay_is_hidden:
        found.append(f"-trusted-proxies {LOOPBACK}")
    if wiring.relay_has_tls:
        found += ["-certmode manual", f"-certdir {paths.RELAY_CERTS}"]
    # Through loopback, not by name: not every provider lets a host reach its own public address.
    found.append(f"-front-check {front_at}")
    url = verify_url(host, site)
    if url:
        found += [f"-verify-client-url {_word(url)}", f"-verify-client-url-fail-open={str(host.relay.verify_fail_open).lower()}"]
        found.append(f"-mesh-psk-file {paths.MESH_KEY}")
    return [*found, f"-metrics-listen 127.0.0.1:{host.ports.metrics}"]


def _word(text: str) -> str:
    """A text of somebody's as one word of ExecStart: systemd would expand its % and $, and take quotes and backslashes away."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != text or "'" in text else text
