"""What headscale itself says on its own host: the map that it serves, and which nodes are at home where. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from control.contract import Conversation
from control.headscale.facts import read_facts
from control.served import Map, Served, Unknown
from engine.facts import Ask, Facts, Output
from engine.scripts import script
from inventory.model import Site

_NOWHERE = Unknown("headscale shows nowhere which map it serves (metrics_listen_addr, 0.26 or newer)")


def ask_map(site: Site, facts: Facts) -> Ask:
    """What to ask headscale's host, given a first look at it. Raises HeadscaleRefused."""
    page = read_facts(site, facts).served()
    return Ask(commands={"served": _page(facts, "map", page.url)} if page else {})


def read_map(facts: Facts) -> Served:
    """The answer to `ask_map`."""
    said = facts.commands.get("served")
    if said is None:
        return _NOWHERE
    if said.status != 0:
        return Unknown(f"headscale does not tell its map: {_last_line(said)}")
    told = _decoded(said)
    return Map(told) if isinstance(told, Mapping) else Unknown(f"headscale does not tell its map, but {said.stdout[:80].strip()}")


def nodes_at_home(session: Conversation, site: Site, regions: Iterable[int]) -> list[str] | None:
    """The nodes that are online and whose home is one of these regions; None when headscale does not tell.

    Raises HeadscaleRefused, Unreachable.
    """
    page = read_facts(site, session.facts).nodes
    if not page:
        return None
    said = session.ask(Ask(commands={"homes": _page(session.facts, "homes", page, *map(str, regions))})).commands["homes"]
    return list(_decoded(said)) if said.status == 0 else None


def _page(facts: Facts, *arguments: str) -> tuple[str, ...]:
    return (facts.python_executable, "-I", "-c", script("headscale_page"), *arguments)


def _decoded(said: Output) -> Any:
    return json.loads(said.stdout)


def _last_line(said: Output) -> str:
    return (said.stderr.strip().splitlines() or [f"exit status {said.status}"])[-1]
