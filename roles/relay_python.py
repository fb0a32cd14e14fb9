"""Our relay as a systemd service: a release directory, sockets that systemd holds, a user that may do nothing else."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.render import render
from engine.resource import Absent, Command, Container, Directory, File, Health, Http, Resource, Service, Symlink, Tree
from inventory.model import Host, Site
from roles import certificate, nginx, paths, sites
from roles.admission import mesh_key_id, verify_url
from roles.wiring import LOOPBACK, wire

_UNIT_FILE = f"{paths.SYSTEMD}/{paths.SERVICE}"
_SOCKET_FILE = f"{paths.SYSTEMD}/{paths.SOCKET}"

ASK = Ask(files=(f"{paths.RELEASES}/*",))


def resources(host: Host, site: Site, facts: Facts, ship: Shipment, *, after: str) -> list[Resource]:
    release = ship.relay_release
    assert release is not None  # noqa: S101 - make_shipment builds it for this flavour
    path = f"{paths.RELEASES}/{release.id}"
    tree = Tree(path=path, archive=release.path)
    # The service cannot write there, and without compiled modules it takes twice as long to start.
    argv = (facts.python_executable, "-I", "-m", "compileall", "-q", path)
    compiled = Command(title=f"compiled {release.id}", argv=argv, creates=f"{path}/relay/__pycache__", on_change=(tree.id,))
    link = Symlink(path=paths.CURRENT, target=path, needs=(compiled.id,))
    streams, datagrams = _streams(host, facts), _everywhere(host.ports.stun, facts)
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
            flags=flags(host, site, facts),
        ),
    )
    socket = Service(
        unit=paths.SOCKET,
        restart_on=(sockets.id,),
        needs=(unit.id, f"container:{paths.CONTAINER}", *certificate.for_relay(host, facts)),
    )
    service = Service(
        unit=paths.SERVICE,
        restart_on=(unit.id, link.id, socket.id, mesh_key_id(host, site)),
        healthy=(health(host),),
        needs=(after,),
    )
    return [
        Directory(path=paths.RELEASES),
        tree,
        compiled,
        link,
        sockets,
        unit,
        Container(container=paths.CONTAINER, running=False),
        socket,
        service,
        *_outdated(facts, path, service.id),
    ]


def _outdated(facts: Facts, kept: str, after: str) -> list[Resource]:
    """Former releases go when the new one has proved to start."""
    there = sorted(path for path in facts.files if path.startswith(f"{paths.RELEASES}/") and path != kept)
    return [Absent(path=path, needs=(after,)) for path in there]


def _streams(host: Host, facts: Facts) -> list[str]:
    wiring = wire(host)
    if wiring.relay.address:
        return [str(wiring.relay)]
    numbers = [wiring.relay.port, *([host.ports.http] if wiring.http_by == "relay" else [])]
    return [place for number in numbers for place in _everywhere(number, facts)]


def _everywhere(port: int, facts: Facts) -> list[str]:
    """A socket for each family: on one for both, clients of IPv4 would have addresses of IPv6."""
    return [f"0.0.0.0:{port}", *([f"[::]:{port}"] if sites.has_ipv6(facts) else [])]


def flags(host: Host, site: Site, facts: Facts) -> list[str]:
    """The relay's command line, one flag with its value a line."""
    found = [f"-c {paths.KEY}", f"-hostname {host.domain}", f"-stun-port {host.ports.stun}"]
    wiring = wire(host)
    found += [f"-a {wiring.relay}", f"-http-port {wiring.relay_http_port}"]
    if wiring.relay_is_hidden:
        found.append(f"-trusted-proxies {LOOPBACK}")
    if wiring.relay_has_tls:
        found += ["-certmode manual", f"-certdir {paths.RELAY_CERTS}"]
    # Through loopback, not by name: not every provider lets a host reach its own public address.
    port = wiring.public.port
    found.append(f"-front-check {nginx.connect(facts, port) if wiring.relay_is_hidden else f'{LOOPBACK}:{port}'}")
    url = verify_url(host, site)
    if url:
        found += [f"-verify-client-url {_word(url)}", f"-verify-client-url-fail-open={str(host.relay.verify_fail_open).lower()}"]
        found.append(f"-mesh-psk-file {paths.MESH_KEY}")
    return [*found, f"-metrics-listen 127.0.0.1:{host.ports.metrics}"]


def _word(text: str) -> str:
    """A text of somebody's as one word of ExecStart: systemd would expand its % and $, and take quotes and backslashes away."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != text or "'" in text else text


def health(host: Host) -> Health:
    """The relay answers for itself, front or no front."""
    wiring = wire(host)
    port = wiring.relay.port
    if not wiring.relay_has_tls:
        return Http(url=f"http://{LOOPBACK}:{port}/derp/probe")
    return Http(url=f"https://{host.domain}:{port}/derp/probe", connect=f"{LOOPBACK}:{port}", insecure=True)
