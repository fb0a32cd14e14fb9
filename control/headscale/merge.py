"""Our regions in the map file under headscale's derp.paths, and the order of changes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from control.derpmap import Pins, yaml_region
from control.headscale.reader import BadMap, parse_map
from control.regions import Region, Regions, renumbered
from control.yaml_text import CannotPatch, patch, plain, tree
from inventory.document import NotYaml
from inventory.model import Host


def merge(text: str, *, put: Mapping[int, Region], remove: Sequence[int] = ()) -> str:
    """Return the file with the regions of `put` added or changed, and those of `remove` removed.

    Nothing else of it changes. Raises BadMap.
    """
    kept = {id: region for id, region in parse_map(text).items() if id not in remove}
    regions = kept | dict(sorted(put.items()))
    try:
        data = plain(tree(text)) or {}
        return patch(text, {**data, "regions": regions}) if regions or data.get("regions") else text
    except (CannotPatch, NotYaml) as error:
        raise BadMap([f"{error}: write it in block style, one key to a line"]) from None


Action = Literal["add", "change", "stop", "remove", "start"]


@dataclass(frozen=True)
class MapStep:
    """One step of a registration.

    `add`, `change` and `remove` concern the map, `stop` and `start` the relay of `host`.
    """

    action: Action
    host: str
    region_id: int
    why: str


def plan_registration(
    current: Regions, wanted: Sequence[Host], *, pins: Pins | None = None
) -> list[MapStep]:
    """Return the steps from the regions in the file to those of the wanted hosts.

    Their order cuts no client off. Measured with tailscaled 1.102.5: A new region disturbs no
    client. The same id with another address makes clients redial at once, 1.4 to 2.6 s without a
    packet. If one edit replaces an id by another, a node stays on the removed region for 52 to
    150 s: it takes frames from the old relay as a sign of life and never checks that the region
    exists. So a region is removed only after its relay was stopped completely, TCP and STUN. Then
    nodes move within 8 s. The steps from the first `stop` on are done later, when a person asks for
    them.
    """
    now, later = [], []
    for host in wanted:
        id, region = host.region.id, yaml_region(host, pin=(pins or {}).get(host.name))
        if current.get(id) is None:
            now.append(MapStep("add", host.name, id, "a new region disturbs no client"))
        elif current[id] != region:
            why = "clients redial a region whose address changed at once"
            now.append(MapStep("change", host.name, id, why))
    for id, host in renumbered(current, wanted).items():
        later += [
            MapStep("stop", host.name, id, f"while it answers, nodes hold on to region {id}"),
            MapStep("remove", host.name, id, f"the host is region {host.region.id} now"),
            MapStep("start", host.name, host.region.id, f"nodes find it again as region {host.region.id}"),
        ]
    return now + later
