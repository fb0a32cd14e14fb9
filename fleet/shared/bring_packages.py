"""Bring the packages that a host lacks: it names them, and the controller fetches them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from artefacts import packages
from artefacts.offline import is_offline
from artefacts.packaged import Packaged
from artefacts.packages import PackagesError
from artefacts.release import Release
from engine.cache import Progress
from engine.facts import Ask
from engine.scripts import script
from engine.session import Session
from inventory.checkout import CACHE
from inventory.model import Host
from roles import distributions
from roles.packages import installed

Extent = Literal["lacking", "all"]
_QUESTION = "packages to fetch"


def bring(host: Host, session: Session, names: Sequence[str], progress: Progress) -> Release:
    """Return the archive with these packages, and all that they need and the host lacks.

    The host's own package lists name them. Where it has none, or offline, those of a bundle do.
    Raises Offline and PackagesError.
    """
    facts, there = session.facts, installed(session.facts)
    if is_offline():
        brought = packages.from_index(facts, names, there, cache=CACHE)
    else:
        try:
            brought = named(host, session, names, "lacking")
        except PackagesError:
            if not packages.has_index(facts, cache=CACHE):
                raise
            brought = packages.from_index(facts, names, there, cache=CACHE)
    return packages.packed(brought, cache=CACHE, progress=progress)


def named(host: Host, session: Session, names: Sequence[str], extent: Extent) -> list[Packaged]:
    """Return the packages that an installation would fetch, as the host's package lists have them.

    `all`: as if the host had no packages. Costs one turn. Raises PackagesError.
    """
    resolver = distributions.of(session.facts).family.carriage.resolver
    streams = (f"@{stream}" for stream in distributions.streams(session.facts))
    argv = (session.facts.python_executable, "-I", "-c", script(resolver), extent, *streams, *names)
    said = session.ask(Ask(commands={_QUESTION: argv})).commands[_QUESTION]
    if said.status:
        raise PackagesError(
            f"{host.name} cannot name the packages that it lacks",
            host=host.name,
            why=said.stderr.strip()[-800:],
            next=(
                "if it has no package lists, use a bundle of a host of the same release that has: "
                "invoke bundle --out derpfleet.bundle --host …, then invoke bundle --use derpfleet.bundle"
            ),
        )
    return packages.parsed(said.stdout)
