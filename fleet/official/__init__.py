"""`invoke official`: Tailscale's regions, how far they are, and which of them are in the map."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from rich.table import Table

from engine import cache
from fleet.official.latency import HERE, Times, measure
from fleet.official.source import DEFAULT, read
from fleet.shared.errors import CannotWrite
from fleet.shared.fleet import Fleet
from inventory.derp_map import MapRegion
from inventory.errors import DerpfleetError
from inventory.model import Host
from inventory.official import Official, file_of, fitted

NONE = "none"
ADMITS = (
    "Tailscale's relays admit nodes of Tailscale's own control server. They serve nodes of a headscale "
    "as well today, and nobody promises that: keep relays of your own beside them."
)


class NoSuchRegion(DerpfleetError):
    """--take names no region of the map."""


def official(fleet: Fleet, hosts: Sequence[Host], *, take: Sequence[str], source: str) -> int:
    """Show the regions of a map with their distances; `take`: pin those of these codes.

    `source`: an https URL or a file, "" for Tailscale's own. Returns the exit code. Raises
    NoOfficialMap, NoSuchRegion, CannotWrite, and SiteError when a code is also that of a host.
    """
    source = source or DEFAULT
    fleet.report.doing("official", f"reading {source}")
    found = Official.model_validate({"from": source, "at": _now(), "taken": [], "map": read(source)})
    if take:
        found = _taken(fleet, found, take)
    else:
        before = fleet.site.official.taken if fleet.site.official else ()
        kept = [id for id in before if id in found.regions]
        found = found.model_copy(update={"taken": tuple(kept)})
    fleet.report.doing("official", f"measuring {len(found.regions)} regions")
    times, errors = measure(fleet, hosts, found.regions)
    fleet.report.doing("official", "")
    _show(fleet, found, times)
    for error in errors:
        fleet.report.failure(error)
    if take:
        _say_what_follows(fleet, found)
    fleet.report.say(ADMITS)
    return max((error.exit_code for error in errors), default=0)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _taken(fleet: Fleet, found: Official, take: Sequence[str]) -> Official:
    """Write the choice beside the site file, and return it."""
    ids = {region.code: id for id, region in found.regions.items()}
    wanted = [] if list(take) == [NONE] else list(take)
    for code in wanted:
        if code not in ids:
            near = get_close_matches(code, ids, 1)
            raise NoSuchRegion(
                f"there is no official region {code}; nothing was taken",
                why=f"the map of {found.source} has: {', '.join(sorted(ids))}",
                next=f"did you mean --take {near[0]}?" if near else "give codes of that list",
            )
    chosen = found.model_copy(update={"taken": tuple(sorted({ids[code] for code in wanted}))})
    fitted(fleet.site, chosen, step="take other regions: invoke official --take CODE")
    file = file_of(fleet.site.path)
    try:
        cache.write(file, chosen.text().encode())
    except OSError as error:
        raise CannotWrite(f"{file} cannot be written", why=error.strerror or "") from None
    return chosen


def _show(fleet: Fleet, found: Official, times: Mapping[str, Times]) -> None:
    """Show a row for each region, the nearest to this controller first."""
    far = float("inf")
    order = sorted(found.regions, key=lambda id: (times.get(HERE, {}).get(id, far), id))
    for id in order:
        region = found.regions[id]
        fleet.report.emit(
            event="official",
            id=id,
            code=region.code,
            name=region.name,
            taken=id in found.taken,
            ms={place or "controller": one.get(id) for place, one in times.items()},
        )
    if fleet.report.json_lines:
        return
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    for title in ("", "code", "region"):
        table.add_column(title, no_wrap=True)
    for place in times:
        table.add_column(place or "from here", justify="right", no_wrap=True)
    for id in order:
        table.add_row(*_cells(found.regions[id], times, id, taken=id in found.taken))
    fleet.report.console.print(table)


def _cells(region: MapRegion, times: Mapping[str, Times], id: int, *, taken: bool) -> list[str]:
    distances = [f"{one[id]:.0f} ms" if id in one else "-" for one in times.values()]
    return ["taken" if taken else "", region.code, f"{region.name} ({id})", *distances]


def _say_what_follows(fleet: Fleet, found: Official) -> None:
    codes = ", ".join(region.code for region in found.chosen.values()) or "no region"
    fleet.report.say(
        f"{codes}: pinned in {file_of(fleet.site.path)}, as the map is now. The next deploy puts this into "
        "the map, and invoke check shows the difference. A tailnet's policy gets them only if it leaves "
        "Tailscale's own regions out (derpmap.omit_default_regions): else its nodes have all of them."
    )
