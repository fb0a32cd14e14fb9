"""Read a DERP map from any file that has one: a Tailscale policy, a map as JSON, headscale's YAML.

Pure. The content says which one it is, and no name of a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from control import hujson
from control.yaml_text import plain, tree
from inventory.derp_map import DerpMap, NoDerpMap, read_derp_map
from inventory.document import NotYaml


@dataclass(frozen=True)
class FoundMap:
    """A map, and in words where it was. `is_headscales`: the file is one of headscale."""

    map: DerpMap
    kind: str
    is_headscales: bool


def found_in(text: str) -> FoundMap:
    """Return the map of a file's text. Raises NoDerpMap, with the line where it is known."""
    is_json = text.lstrip("\ufeff \t\r\n").startswith(("{", "//", "/*"))
    data = _json(text) if is_json else _yaml(text)
    if not isinstance(data, dict):
        raise NoDerpMap("it is neither a policy nor a DERP map: no mapping of keys")
    lower = {str(key).lower(): value for key, value in data.items()}
    if is_json and "derpmap" in lower:
        return FoundMap(read_derp_map(lower["derpmap"]), "a Tailscale policy", is_headscales=False)
    if "regions" not in lower:
        raise NoDerpMap("it is neither a policy nor a DERP map: it has no derpMap, and no Regions")
    kind = "a DERP map" if is_json else "a map file of headscale"
    return FoundMap(read_derp_map(data), kind, is_headscales=not is_json)


def _json(text: str) -> Any:
    """Return the data. Raises NoDerpMap, also for a key of the map that is there twice."""
    try:
        root = hujson.parse(text.removeprefix("\ufeff").rstrip() + "\n")
        policys = root.find("derpMap")
        for error in hujson.duplicates(policys.value if policys else root):
            raise error
        return root.plain()
    except hujson.NotHujson as error:
        raise NoDerpMap(str(error)) from None


def _yaml(text: str) -> Any:
    try:
        return plain(tree(text))
    except NotYaml as error:
        raise NoDerpMap(error.words) from None
