"""The relay's keys: the one that it is known by, and the mesh key that lets our proof in. Every flavour has the same ones."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Facts
from engine.resource import Absent, Command, Directory, File, Resource
from engine.scripts import script
from inventory.model import Host, Site
from roles import paths
from roles.admission import verify_url

# The key of a relay that was set up by hand when there is one, so that its public key stays; else a new one. Of a file that lies where
# others may write only a key is taken over: a link in its place would show the relay what only root may read.
_OLD_KEY = "/var/lib/derper/derper.key"


def made(facts: Facts) -> Command:
    """Return the relay's key."""
    return Command(
        title="relay key",
        argv=(facts.python_executable, "-I", "-c", script("make_key"), paths.KEY, paths.USER, _OLD_KEY),
        creates=paths.KEY,
        needs=(f"directory:{paths.STATE}", f"group:{paths.USER}"),
    )


def of_mesh(host: Host, site: Site, ship: Shipment) -> list[Resource]:
    """Where headscale decides who gets in, our proof has no node key that it knows; the relay's own mesh key lets it in to be proved."""
    if not verify_url(host, site):
        return [Absent(path=paths.MESH_KEY)]
    assert ship.mesh_key is not None  # noqa: S101 - fleet derives one for every host
    return [
        Directory(path=paths.MESH_KEYS, mode="0750", group=paths.USER),
        File(path=paths.MESH_KEY, content=ship.mesh_key, mode="0640", group=paths.USER, secret=True),
    ]
