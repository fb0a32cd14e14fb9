"""The JSON Schema of a site file, for editors.

`python -m inventory.schema` writes inventory/schema.json.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from inventory.model import Site

FILE = Path(__file__).with_name("schema.json")

# Two hosts never share these keys, so `defaults` may not hold them.
OF_ONE_HOST = ("domain", "region", "ipv4", "ipv6")

Schema = dict[str, Any]


def json_schema() -> Schema:
    """Return the schema of the file, in which a key without a value counts as absent.

    It is the model's schema without the keys that the loader fills in, and with `defaults`.
    """
    schema = _tidy(Site.model_json_schema())
    host = schema["$defs"]["Host"]
    of_host = host["properties"]
    _drop(host, "name")
    _drop(schema, "path")
    _drop(schema, "official")
    for part in ("Official", "DerpMap", "MapRegion", "MapNode"):
        del schema["$defs"][part]
    schema["required"] = ["hosts"]
    schema["properties"]["hosts"]["additionalProperties"] = False
    schema["properties"]["defaults"] = {"$ref": "#/$defs/Defaults"}
    schema["$defs"]["Defaults"] = {
        **deepcopy(host),
        "description": "Defaults of every host; `ssh` holds for the headscale host, too.",
        "properties": {key: value for key, value in of_host.items() if key not in OF_ONE_HOST},
        "required": [],
    }
    head: Schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "derpfleet site file"}
    return {**head, **schema}


def schema_at(schema: Schema, path: tuple[str | int, ...]) -> Schema:
    """Return the part of `schema` that describes the value at `path`; {} when there is none."""
    part = schema
    for step in path:
        part = _plain(schema, part)
        if isinstance(step, int):
            part = part.get("items", {})
        elif step in part.get("properties", {}):
            part = part["properties"][step]
        else:
            beside = part.get("additionalProperties")
            other = beside if isinstance(beside, dict) else {}
            patterns = part.get("patternProperties", {})
            part = next(iter(patterns.values()), other)
    return _plain(schema, part)


def _plain(schema: Schema, part: Schema) -> Schema:
    """Return the part with its `$ref` resolved, and without the `null` of an optional value.

    The keys beside them (description, default) are kept.
    """
    for option in part.get("anyOf", ()):
        if option.get("type") != "null":
            part = {**option, **part}
    if "$ref" in part:
        part = {**schema["$defs"][part["$ref"].rpartition("/")[2]], **part}
    return part


def _tidy(part: Any) -> Any:
    """Return the part without its titles, which only repeat the keys."""
    if isinstance(part, dict):
        kept = {key: value for key, value in part.items() if key != "title" or not isinstance(value, str)}
        return {key: _tidy(value) for key, value in kept.items()}
    return [_tidy(item) for item in part] if isinstance(part, list) else part


def _drop(part: Schema, key: str) -> None:
    del part["properties"][key]
    part["required"] = [name for name in part["required"] if name != key]


def main() -> None:
    """Write the file that editors read."""
    FILE.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
