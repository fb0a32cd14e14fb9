"""Tailscale's official regions: those that were chosen for the map, pinned beside the site file.

`invoke official` writes the file. It has the whole map of that day, so that a region that is no
longer chosen is known by its nodes. A deploy reads it and fetches nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inventory.derp_map import OURS, DerpMap, MapRegion, NoDerpMap, read_derp_map
from inventory.problems import Problem, SiteError

if TYPE_CHECKING:
    from inventory.model import Site

# No verb runs with a wrong file, and invoke official is one.
_ANEW = "delete this file, then invoke official --take CODE writes it again"


class Official(BaseModel):
    """Official regions. `source`: the URL or file of the map. `at`: when it was read, in UTC.

    `taken`: the ids of the chosen regions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(alias="from", max_length=2048)
    at: str = Field(max_length=32)
    taken: tuple[int, ...]
    map: DerpMap

    @model_validator(mode="after")
    def _is_whole(self) -> Official:
        if unknown := [id for id in self.taken if id not in self.regions]:
            raise ValueError(f"taken: there is no region {unknown[0]} in its map")
        return self

    @property
    def regions(self) -> Mapping[int, MapRegion]:
        """Return all of Tailscale's regions by their ids."""
        every = self.map.regions.items()
        return {id: one for id, one in every if one is not None and id < OURS.start and one.nodes}

    @property
    def chosen(self) -> Mapping[int, MapRegion]:
        """Return the chosen regions by their ids."""
        return {id: one for id, one in self.regions.items() if id in self.taken}

    def text(self) -> str:
        """Return the text of the file."""
        head = {"from": self.source, "at": self.at, "taken": list(self.taken)}
        return json.dumps(head | {"map": self.map.tailcfg()}, indent=1, ensure_ascii=False) + "\n"


def file_of(site_file: str | Path) -> Path:
    """Return the place of the file: site.official.json beside site.yml."""
    return Path(site_file).with_suffix(".official.json")


def with_official(site: Site) -> Site:
    """Return the site with the official regions that were chosen for it, if there are any.

    Raises SiteError when the file beside the site file is wrong, or takes a region whose code a
    host of the site has.
    """
    file = file_of(site.path)
    try:
        raw = json.loads(file.read_bytes())
        if isinstance(raw, dict) and "map" in raw:
            raw["map"] = read_derp_map(raw["map"])
        found = Official.model_validate(raw)
    except FileNotFoundError:
        return site
    except OSError as error:
        raise _wrong(file, f"cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, words = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise _wrong(file, f"{where}: {words}".removeprefix(": ")) from None
    except (ValueError, RecursionError) as error:
        what = f"map: {error}" if isinstance(error, NoDerpMap) else "is no JSON"
        raise _wrong(file, what) from None
    return fitted(site, found, step=_ANEW)


def fitted(site: Site, found: Official, *, step: str) -> Site:
    """Return the site with these official regions. Raises SiteError for a code of a host.

    `step`: how to take others.
    """
    problems = [
        Problem("", None, f"takes {one.code} ({id}), and hosts.{host.name}.region.code is {one.code} as well")
        for id, one in found.chosen.items()
        for host in site.hosts.values()
        if host.region.code == one.code
    ]
    if problems:
        raise SiteError(file_of(site.path), problems, next=f"give the host another code, or {step}")
    return site.model_copy(update={"official": found})


def _wrong(file: Path, message: str) -> SiteError:
    return SiteError(file, [Problem("", None, message)], next=_ANEW)
