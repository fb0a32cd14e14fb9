"""The releases of the relay's programs on the host, and the link to the one in use."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.resource import Absent, Tree
from roles import paths, trees

ASK = trees.ask(paths.RELEASES)


def tree(ship: Shipment) -> Tree:
    """Return the relay's release, unpacked in a directory with its id."""
    release = ship.relay_release
    assert release is not None  # noqa: S101 - make_shipment makes it for what runs without an image
    return Tree(path=f"{paths.RELEASES}/{release.id}", archive=release.path, shared=release.shared)


def unused(*, needs: tuple[str, ...] = ()) -> list[Absent]:
    """Return the removal of the link, and of all releases once no generation has one."""
    releases = Absent(path=paths.RELEASES, needs=needs, unless_kept=paths.RELEASES)
    return [Absent(path=paths.CURRENT, needs=needs), releases]


def absent(*, needs: tuple[str, ...] = ()) -> list[Absent]:
    """Return the removal of every release and of the link, after `needs`."""
    return [Absent(path=path, needs=needs) for path in (paths.CURRENT, paths.RELEASES)]
