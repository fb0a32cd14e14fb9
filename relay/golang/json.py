"""JSON objects as Go reads them into a struct: names in any letter case, null for absent."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

_MAX_DIGITS = 20  # of 64 bits, with a sign; converting very long integers takes quadratic time


def parse_members(data: bytes) -> dict[str, Any]:
    """Return the members by their names in lower case, those that are null as None.

    An integer that needs more than 64 bits may be infinity: Go passes over one in a member that it
    does not know. Raises ValueError.
    """
    try:
        document = _DECODER.decode(_text(data))
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    return _members(document)


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the members that are not null, as `parse_members` does. Raises ValueError."""
    return {name: value for name, value in parse_members(data).items() if value is not None}


def parse_first_object(data: bytes) -> dict[str, Any]:
    """Return the members of the first document; anything may follow it. Raises ValueError.

    Go's Decoder reads so, where Unmarshal reads as `parse_object` does.
    """
    try:
        document, _ = _DECODER.raw_decode(_text(data).lstrip(" \t\r\n"))
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    return {name: value for name, value in _members(document).items() if value is not None}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _members(document: Any) -> dict[str, Any]:
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValueError("is not a JSON object")
    return {name.lower(): value for name, value in document.items()}


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# Made once: json.loads with options makes a new one for each call.
_DECODER = json.JSONDecoder(parse_int=_integer, parse_constant=_refuse)
