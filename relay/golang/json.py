"""JSON objects as Go reads them into a struct: names in any letter case, null for absent."""

from __future__ import annotations

import json
from typing import Any

_DECODER = json.JSONDecoder()


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the members by their names in lower case. Raises ValueError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    return _members(document)


def parse_first_object(data: bytes) -> dict[str, Any]:
    """Return the members of the first document; anything may follow it. Raises ValueError.

    Go's Decoder reads so, where Unmarshal reads as `parse_object` does.
    """
    try:
        document, _ = _DECODER.raw_decode(data.decode("utf-8", "replace").lstrip(" \t\r\n"))
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    return _members(document)


def _members(document: Any) -> dict[str, Any]:
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValueError("is not a JSON object")
    return {name.lower(): value for name, value in document.items() if value is not None}
