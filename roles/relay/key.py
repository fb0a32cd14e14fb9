"""The relay's keys, which every program uses: its own, and the mesh key that lets our proof in."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Facts
from engine.resource import Absent, Command, Directory, File, Resource
from engine.scripts import script
from inventory.admission import verify_url
from inventory.model import Host, Site
from roles import paths

# Reuse the key of a relay set up by hand, so that its public key stays the same. Others may be
# able to write to that directory, so follow no link and accept nothing but a key: a planted link
# could expose a file that only root may read.
_OLD_KEY = "/var/lib/derper/derper.key"


def made(facts: Facts) -> Command:
    """Return the command that makes the relay's key, unless it is there."""
    return Command(
        title="relay key",
        argv=(facts.python_executable, "-I", "-c", script("make_key"), paths.KEY, paths.USER, _OLD_KEY),
        creates=paths.KEY,
        needs=(f"directory:{paths.STATE}", f"group:{paths.USER}"),
    )


def of_mesh(host: Host, site: Site, ship: Shipment) -> list[Resource]:
    """Return the mesh key where the relay asks a URL for every client, else its removal.

    Our proof has no node key that headscale knows; this key lets it in.
    """
    if not verify_url(host, site):
        return [Absent(path=paths.MESH_KEY)]
    assert ship.mesh_key is not None  # noqa: S101 - fleet derives one for every host
    return [
        Directory(path=paths.MESH_KEYS, mode="0750", group=paths.USER),
        File(path=paths.MESH_KEY, content=ship.mesh_key, mode="0640", group=paths.USER, secret=True),
    ]


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of both keys after `needs`: a later deploy makes a new public key."""
    return [Absent(path=path, needs=needs) for path in (paths.MESH_KEYS, paths.KEY)]
