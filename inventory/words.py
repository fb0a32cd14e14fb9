"""pydantic's errors in plain sentences. Pure.

The limits, and the words for a pattern, come from the JSON Schema, so that an editor and the loader
say the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from inventory.schema import Schema

PLACEHOLDER = "CHANGE-ME"


def explain(error: Mapping[str, Any], part: Schema) -> str:
    """Return the sentence for one of pydantic's errors.

    `part` is the schema of the value, or for an unknown key the schema of its section.
    """
    kind, value, limits = error["type"], error["input"], error.get("ctx", {})
    if isinstance(value, str) and PLACEHOLDER in value:
        return f"{PLACEHOLDER} is only a placeholder: write your own{_description(part)}"
    # A secret that was written by mistake is not shown, nor a value in place of a section, which
    # may hold one.
    shown = "the value here" if part.get("writeOnly") or kind in _SECTIONS else show(value)
    match kind:
        case "missing":
            sentence = f"is missing{_description(part)}"
        case "extra_forbidden":
            sentence = unknown_key(str(error["loc"][-1]), part.get("properties", {}))
        case "literal_error":
            sentence = f"{shown} is none of {', '.join(part['enum'])}{_did_you_mean(value, part['enum'])}"
        case "string_pattern_mismatch" | "value_error" if "patternErrorMessage" in part:
            sentence = f"{shown} is not {part['patternErrorMessage']}"
        case "greater_than_equal" | "less_than_equal" if "minimum" in part and "maximum" in part:
            sentence = f"{shown} is not between {show(part['minimum'])} and {show(part['maximum'])}"
        case "value_error" if part.get("format") in _FORMATS:
            sentence = f"{shown} is not {_FORMATS[part['format']]}"
        case "login_in_url":
            sentence = error["msg"]
        case "string_too_long":
            sentence = f"{shown} is longer than {limits['max_length']} characters"
        case "string_too_short" | "too_short":
            sentence = "is empty"
        case _:
            sentence = f"{shown} is not {_TYPES[kind]}" if kind in _TYPES else f"{shown}: {error['msg']}"
    return sentence


_SECTIONS = ("model_type", "model_attributes_type", "dict_type")
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text: put it in quotes",
    **dict.fromkeys(_SECTIONS, "a section: its keys are on their own lines, indented"),
    "tuple_type": "a list: each entry is on its own line, behind a hyphen",
    "list_type": "a list: each entry is on its own line, behind a hyphen",
}
_FORMATS = {"ipv4": "an IPv4 address", "ipv6": "an IPv6 address"}


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the sentence for an unknown key, with the nearest known key or all of them."""
    known = list(known)
    near = _did_you_mean(key, known)
    return f"unknown key{near}" if near else f"unknown key; known here: {', '.join(known)}"


def show(value: Any) -> str:
    """Return the value as it is written in YAML, shortened."""
    if isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, float) and value.is_integer():
        text = str(int(value))
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]


def _did_you_mean(value: Any, known: Iterable[str]) -> str:
    near = get_close_matches(value.lower(), known, n=1) if isinstance(value, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def _description(part: Schema) -> str:
    if "properties" in part:
        return f" (a section with {', '.join(part['required'])})" if part.get("required") else ""
    return f" ({part['description']})" if "description" in part else ""
