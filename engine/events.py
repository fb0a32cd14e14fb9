"""The events that an agent may send: the fields of each, and the type of each field.

A host that was taken over may send anything; unknown events and fields are not passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

Event = dict[str, Any]
STATUSES = ("ok", "changed", "failed", "skipped")
_LARGEST = 1 << 53


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _LARGEST


def _count(value: Any) -> bool:
    return type(value) is int and _number(value)


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and all(_count(value.get(status)) for status in STATUSES)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _differences(value: Any) -> bool:
    return isinstance(value, dict) and all(_texts(pair) and len(pair) == 2 for pair in value.values())


def _partials(value: Any) -> bool:
    """Whether it is {content: [length, sha256]}."""
    return isinstance(value, dict) and all(
        isinstance(part, list) and len(part) == 2 and _count(part[0]) and _text(part[1])
        for part in value.values()
    )


_Fields = Mapping[str, Callable[[Any], bool]]
_STAMPS: _Fields = {"seq": _count, "t": _number}
_TALK: Mapping[str, _Fields] = {
    "hello": {"v": _count, "z": _text},
    "locked": {"who": _text, "since": _number, "in_force": _text},
    "facts": {"z": _text},
    "history": {"z": _text},
    "leased": {"number": _count, "z": _text},
    "noted": {},
    "refused": {"what": _text, "where": _text, "why": _text, "next": _text},
    "crash": {"traceback": _text},
}
_WORK: Mapping[str, _Fields] = {  # these come only after a plan
    "want": {"blobs": _texts, "partial": _partials},
    "diff": {"id": _text, "keys": _differences, "text": _text},
    "result": {"id": _text, "status": STATUSES.__contains__, "ms": _count},
    "heartbeat": {"id": _text},
    "waiting": {"id": _text, "reason": _text},
    "confirm": {"id": _text, "path": _text, "within_s": _number},
    "armed": {"counts": _counts, "generation": _count, "within_s": _number, "stopped": _text},
    "kept": {"generation": _count},
    "going_back": {"generation": _count, "ids": _texts, "stays": _texts},
    "back": {"generation": _count},
    "stored": {
        "generation": _count, "newest": _count, "ids": _texts, "drift": _texts, "stays": _texts, "z": _text
    },
    "done": {"counts": _counts, "stopped": _text},
}
_REASONS: Mapping[str, _Fields] = {  # more fields of a result, by its status
    "failed": {"what": _text, "why": _text},
    "skipped": {"reason": _text},
}


def understood(said: Any, *, ids: Collection[str] | None) -> Event:
    """Return the event with its required fields and no other.

    `ids`: the ids of the plan; None before there is a plan.
    Raises ValueError, TypeError, KeyError or AttributeError when `said` is not an event.
    """
    kind = said["event"]
    fields = _TALK[kind] if ids is None else {**_TALK, **_WORK}[kind]
    reasons = _REASONS.get(said["status"], {}) if kind == "result" else {}
    for name, holds in {**_STAMPS, **fields, **reasons}.items():
        if not holds(said.get(name)):
            raise ValueError(f"{kind} without a proper {name}")
    if ids is not None and said.get("id") and said["id"] not in ids:
        raise ValueError(f"{kind} of {said['id']!r}, which is not in the plan")
    return {"event": kind, **{name: said[name] for name in (*_STAMPS, *fields, *reasons)}}
