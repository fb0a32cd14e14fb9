"""A DERP map, as Tailscale's JSON, a policy or headscale's YAML has it (tailcfg.DERPMap). No I/O.

Go's decoders ignore the case of keys and the keys that they do not know, and so does this one. A
map may come from the network, so everything in it has a limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

OURS = range(900, 1000)
"""The ids of private regions. All lower ones are Tailscale's."""

_Word = Annotated[str, Field(max_length=253, pattern=r"^[\x21-\x7e]*$")]
_Line = Annotated[str, Field(max_length=253, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
_Port = Annotated[int, Field(ge=0, le=65535)]
_Id = Annotated[int, Field(ge=1, le=1 << 31)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    def tailcfg(self) -> dict[str, Any]:
        """Return it with tailcfg's names, without the keys that have their default."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


class MapNode(_Part):
    """A tailcfg.DERPNode. A port of 0 is the default one; `stun_port` -1: it has no STUN."""

    name: _Word = Field("", alias="Name")
    region_id: _Id | None = Field(None, alias="RegionID")
    host_name: Annotated[_Word, Field(min_length=1)] = Field(alias="HostName")
    cert_name: _Word = Field("", alias="CertName")
    ipv4: _Word = Field("", alias="IPv4")
    ipv6: _Word = Field("", alias="IPv6")
    stun_port: int = Field(0, alias="STUNPort", ge=-1, le=65535)
    stun_only: bool = Field(False, alias="STUNOnly")
    derp_port: _Port = Field(0, alias="DERPPort")
    insecure: bool = Field(False, alias="InsecureForTests")
    can_port_80: bool = Field(False, alias="CanPort80")


class MapRegion(_Part):
    """A tailcfg.DERPRegion."""

    id: _Id = Field(alias="RegionID")
    code: _Word = Field("", alias="RegionCode")
    name: _Line = Field("", alias="RegionName")
    latitude: float | None = Field(None, alias="Latitude", ge=-90, le=90)
    longitude: float | None = Field(None, alias="Longitude", ge=-180, le=180)
    avoid: bool = Field(False, alias="Avoid")
    no_measure_no_home: bool = Field(False, alias="NoMeasureNoHome")
    nodes: Annotated[tuple[MapNode, ...], Field(max_length=64)] = Field((), alias="Nodes")


class DerpMap(_Part):
    """A tailcfg.DERPMap. A region that is None takes Tailscale's own one of that id away."""

    omit_default_regions: bool = Field(False, alias="OmitDefaultRegions")
    regions: Annotated[dict[_Id, MapRegion | None], Field(max_length=512)] = Field(alias="Regions")


_NAMES = {
    str(field.alias).lower(): str(field.alias)
    for part in (MapNode, MapRegion, DerpMap)
    for field in part.model_fields.values()
}


class NoDerpMap(ValueError):
    """The data is no DERP map. The text says where and why."""


def read_derp_map(data: Any) -> DerpMap:
    """Return the map that decoded JSON or YAML has. Raises NoDerpMap with the first trouble."""
    try:
        cased = _cased(data)
        found = DerpMap.model_validate(cased)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise NoDerpMap(f"{where}: {first['msg']}".removeprefix(": ")) from None
    except RecursionError:
        raise NoDerpMap("it is nested too deeply") from None
    if len(found.regions) < len(cased["Regions"]):
        raise NoDerpMap("Regions: an id is there twice, as 900 and 0900 are")
    for id, region in found.regions.items():
        if region is not None and region.id != id:
            raise NoDerpMap(f"Regions.{id}: its RegionID is {region.id}")
    return found


def _cased(data: Any) -> Any:
    """Return the data with tailcfg's names, whatever their case. A key that is null is absent.

    Raises NoDerpMap for a name that is there in two cases.
    """
    if isinstance(data, Mapping):
        found: dict[Any, Any] = {}
        for key, value in data.items():
            name = _NAMES.get(str(key).lower(), key)
            if name in found:
                raise NoDerpMap(f"{str(key)[:40]} is there twice: {name} is the same key")
            if value is not None or str(key).isdigit():
                found[name] = _cased(value)
        return found
    return [_cased(item) for item in data] if isinstance(data, list) else data
