"""The relay, in one of two flavours that share user, key and ports. Of the one that is not wanted nothing is left listening."""

from __future__ import annotations

from artefacts.programs import PYTHON_FLOOR
from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Absent, Command, Container, Directory, File, Resource, Service
from engine.scripts import script
from inventory.choices import flavour_of
from inventory.model import Host, Site
from roles import docker, paths, ports, relay_docker, relay_python
from roles.admission import verify_url

ASK = Ask(
    files=(*ports.ASK.files, *docker.ASK.files, *relay_python.ASK.files),
    commands=ports.ASK.commands,
)

_OLD_KEY = "/var/lib/derper/derper.key"


def unit_id(host: Host) -> str:
    """The resource that stands for the running relay."""
    return f"container:{paths.CONTAINER}" if flavour_of(host).in_container else f"service:{paths.SERVICE}"


def resources(host: Host, site: Site, facts: Facts, ship: Shipment) -> list[Resource]:
    key = Command(
        title="relay key",
        argv=(facts.python_executable, "-I", "-c", script("make_key"), paths.KEY, paths.USER, _OLD_KEY),
        creates=paths.KEY,
        needs=(f"directory:{paths.STATE}", f"group:{paths.USER}"),
    )
    flavour = relay_docker if flavour_of(host).in_container else relay_python
    return [key, *_mesh_key(host, site, ship), *flavour.resources(host, site, facts, ship, after=key.id)]


def stopped() -> list[Resource]:
    """Of neither flavour anything listens any more, now and after a reboot. What is installed stays."""
    units = [Service(unit=unit, enabled=False, running=False, role="relay") for unit in (paths.SOCKET, paths.SERVICE)]
    return [*units, Container(container=paths.CONTAINER, running=False, role="relay")]


def _mesh_key(host: Host, site: Site, ship: Shipment) -> list[Resource]:
    """Where headscale decides who gets in, our proof has no node key that it knows; the relay's own mesh key lets it in to be proved."""
    if not verify_url(host, site):
        return [Absent(path=paths.MESH_KEY)]
    assert ship.mesh_key is not None  # noqa: S101 - fleet derives one for every host
    return [
        Directory(path=paths.MESH_KEYS, mode="0750", group=paths.USER),
        File(path=paths.MESH_KEY, content=ship.mesh_key, mode="0640", group=paths.USER, secret=True),
    ]


def warnings(host: Host, site: Site, facts: Facts) -> list[str]:
    if verify_url(host, site) or host.relay.open:
        return []
    return [
        "the relay is open to everybody who finds it, as there is no headscale in the site to ask who may use it: set "
        f"hosts.{host.name}.relay.verify_client_url to one that knows, or hosts.{host.name}.relay.open to true, if that is meant"
    ]


def refusals(host: Host, site: Site, facts: Facts) -> list[str]:
    found = ports.taken(host, facts)
    if flavour_of(host).in_container:
        return [*found, *docker.refusals(host, facts), *relay_docker.refusals(host, site)]
    if facts.python[:2] < PYTHON_FLOOR:
        found.append(
            f"{host.name} has Python {'.'.join(map(str, facts.python))}, and our relay needs {'.'.join(map(str, PYTHON_FLOOR))}: "
            f"set hosts.{host.name}.flavour to docker, or hosts.{host.name}.ssh.python to a newer one."
        )
    return found
