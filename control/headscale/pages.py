"""Ask headscale, on its own host, for the map that it serves and for the homes of nodes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from control.contract import HostSession
from control.headscale.facts import read_facts
from control.regions import Region
from control.served import Map, Served, Unknown, Unreadable
from engine.facts import Ask, Facts, Output
from engine.scripts import script
from inventory.model import Site

_NOT_SHOWN = Unknown(
    "headscale does not show which map it serves: that needs metrics_listen_addr, and 0.26 or newer"
)


def ask_map(site: Site, facts: Facts) -> Ask:
    """Return the question for the served map, given the first facts. Raises HeadscaleRefused."""
    page = read_facts(site, facts).served()
    return Ask(commands={"served": _page(facts, "map", page.url)} if page else {})


def read_map(facts: Facts) -> Served:
    """Read the answer to `ask_map`."""
    said = facts.commands.get("served")
    if said is None:
        return _NOT_SHOWN
    if said.status != 0:
        return _unreadable(f"headscale does not report its map: {_last_line(said)}")
    try:
        found = json.loads(said.stdout)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping):
        return _unreadable(f"headscale does not report its map, but {said.stdout[:80].strip()}")
    return Map(found)


def read_lasting_map(site: Site, facts: Facts, answer: Facts) -> Served:
    """Read the answer to `ask_map`, if headscale lasts. Raises HeadscaleRefused."""
    looping = read_facts(site, facts).looping
    return _unreadable(looping) if looping else read_map(answer)


def _unreadable(why: str) -> Unreadable:
    return Unreadable(
        why,
        cause=(
            "headscale does not run, or starts again and again: a map file that it cannot read or a "
            "derp.urls that it cannot reach stops its start"
        ),
        next="on headscale's host: journalctl --unit headscale --lines 20 names the file or the URL",
    )


def served_regions(facts: Facts) -> dict[int, Region]:
    """Return the regions that headscale serves, in the spelling of its files; {} if not known."""
    served = read_map(facts)
    document = _spelled(served.document) if isinstance(served, Map) else {}
    regions = document.get("regions")
    found = {}
    for id, region in regions.items() if isinstance(regions, dict) else ():
        nodes = region.get("nodes") if isinstance(region, dict) else None
        listed = nodes if isinstance(nodes, list) else ()
        named = [node for node in listed if isinstance(node, dict) and node.get("hostname")]
        if id.isdecimal() and len(id) < 10 and named:
            found[int(id)] = {**region, "nodes": named}
    return found


def _spelled(value: Any) -> Any:
    """Return a map with its names in lower case and without underscores."""
    if isinstance(value, Mapping):
        return {str(name).replace("_", "").lower(): _spelled(member) for name, member in value.items()}
    return list(map(_spelled, value)) if isinstance(value, list) else value


def nodes_at_home(session: HostSession, site: Site, regions: Iterable[int]) -> list[str] | None:
    """Return the names of the nodes that are online and whose home is one of these regions.

    None when headscale does not report them. Raises HeadscaleRefused, Unreachable.
    """
    page = read_facts(site, session.facts).nodes
    if not page:
        return None
    asked = Ask(commands={"homes": _page(session.facts, "homes", page, *map(str, regions))})
    said = session.ask(asked).commands["homes"]
    return _names(said.stdout) if said.status == 0 else None


def _page(facts: Facts, *arguments: str) -> tuple[str, ...]:
    return (facts.python_executable, "-I", "-c", script("headscale_page"), *arguments)


def _names(printed: str) -> list[str] | None:
    """Return the printed list of names; None when it is none."""
    try:
        found = json.loads(printed)
    except (ValueError, RecursionError):
        return None
    return list(map(str, found)) if isinstance(found, list) else None


def _last_line(said: Output) -> str:
    return (said.stderr.strip().splitlines() or [f"exit status {said.status}"])[-1]
