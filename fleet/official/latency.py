"""How far Tailscale's regions are: by STUN, as clients measure them, from here and from hosts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence

from engine.facts import Ask
from engine.scripts import script
from fleet.shared.fleet import Fleet
from inventory.derp_map import MapNode, MapRegion
from inventory.errors import DerpfleetError
from inventory.model import Host

HERE = ""
Times = Mapping[int, float]  # region id -> milliseconds; a region that does not answer is absent
_FAR_MS = 60_000.0
_WITHIN_S = 60.0
_STUN = 3478
_NODES = 6  # of a region that are asked; all that a map may have are too many for a command line


def measure(
    fleet: Fleet, hosts: Sequence[Host], regions: Mapping[int, MapRegion]
) -> tuple[dict[str, Times], list[DerpfleetError]]:
    """Measure all regions at once, from this controller (HERE) and from each host in one session.

    Returns the times by place, and the errors of hosts that could not be asked.
    """
    found, errors = dict[str, Times](), list[DerpfleetError]()
    words = [word for id, region in regions.items() for word in _words(id, region)]
    program = ("-I", "-c", script("stun_times"), *words)

    def one(host: Host | None) -> None:
        if host is None:
            found[HERE] = _times(_run([sys.executable, *program]))
            return
        ask = Ask(commands={"times": (host.ssh.python, *program)})
        try:
            with fleet.session_for_reading(fleet.login(host), ask) as session:
                found[host.name] = _times(session.facts.commands["times"].stdout)
        except DerpfleetError as error:
            error.host = error.host or host.name
            errors.append(error)

    fleet.parallel.each([None, *hosts], one)
    order = [HERE, *(host.name for host in hosts)]
    return {place: found[place] for place in order if place in found}, errors


def _words(id: int, region: MapRegion) -> list[str]:
    nodes = [node for node in region.nodes if node.stun_port >= 0]
    return [f"{id},{_address(node)},{node.stun_port or _STUN}" for node in nodes[:_NODES]]


def _address(node: MapNode) -> str:
    given = (address for address in (node.ipv4, node.ipv6) if address not in ("", "none"))
    return next(given, node.host_name)


def _run(argv: Sequence[str]) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_WITHIN_S).stdout
    except subprocess.TimeoutExpired:
        return ""


def _times(printed: str) -> Times:
    """Read the script's output. Empty when a host printed anything else."""
    try:
        found = json.loads(printed)
        pairs = [(int(id), ms) for id, ms in found.items()]
    except (ValueError, AttributeError, RecursionError):
        return {}
    return {id: ms for id, ms in pairs if isinstance(ms, float) and 0 <= ms < _FAR_MS}
