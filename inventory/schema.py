"""The JSON Schema of a site file, for editors. `python -m inventory.schema` writes inventory/schema.json."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from inventory.model import Site

FILE = Path(__file__).with_name("schema.json")

# What two hosts never share; so `defaults` may not hold it.
OF_ONE_HOST = ("domain", "region", "ipv4", "ipv6")

Schema = dict[str, Any]


def json_schema() -> Schema:
    """The file's schema: the model's, without what the loader fills in, and with `defaults`. A key without a value counts as absent."""
    schema = _tidy(Site.model_json_schema())
    host = schema["$defs"]["Host"]
    _drop(host, "name")
    _drop(schema, "path")
    schema["required"] = ["hosts"]
    schema["properties"]["hosts"]["additionalProperties"] = False
    schema["properties"]["defaults"] = {"$ref": "#/$defs/Defaults"}
    schema["$defs"]["Defaults"] = {
        **deepcopy(host),
        "description": "What every host has that does not set it itself; `ssh` holds for the headscale host, too.",
        "properties": {key: value for key, value in host["properties"].items() if key not in OF_ONE_HOST},
        "required": [],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "derpfleet site file", **schema}


def schema_at(schema: Schema, path: tuple[str | int, ...]) -> Schema:
    """The part of `schema` that describes the value at `path`; {} when it describes none."""
    part = schema
    for step in path:
        part = _plain(schema, part)
        if isinstance(step, int):
            part = part.get("items", {})
        elif step in part.get("properties", {}):
            part = part["properties"][step]
        else:
            beside = part.get("additionalProperties")
            part = next(iter(part.get("patternProperties", {}).values()), beside if isinstance(beside, dict) else {})
    return _plain(schema, part)


def _plain(schema: Schema, part: Schema) -> Schema:
    """Without `$ref`, and without the `null` of an optional value; what stands beside them (description, default) is kept."""
    for option in part.get("anyOf", ()):
        if option.get("type") != "null":
            part = {**option, **part}
    if "$ref" in part:
        part = {**schema["$defs"][part["$ref"].rpartition("/")[2]], **part}
    return part


def _tidy(part: Any) -> Any:
    """Without the titles, which say the key again."""
    if isinstance(part, dict):
        return {key: _tidy(value) for key, value in part.items() if not (key == "title" and isinstance(value, str))}
    return [_tidy(item) for item in part] if isinstance(part, list) else part


def _drop(part: Schema, key: str) -> None:
    del part["properties"][key]
    part["required"] = [name for name in part["required"] if name != key]


def main() -> None:
    """Writes the file that editors read."""
    FILE.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
