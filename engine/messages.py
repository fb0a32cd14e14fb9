"""The messages of a conversation with an agent, as bytes and as what they say."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

from engine.facts import Ask, Facts
from engine.generations import Outline

FACTS_MAX = 4 << 20  # unpacked: `nginx -T` of a thousand sites, and the files beside it
_GROUPS_MAX = 300_000  # lists and mappings: each takes up to 240 bytes of memory


def introduced(raw: Any) -> tuple[Facts, Outline]:
    """Return the facts and the outline of the newest generation. Raises ValueError."""
    outline = Outline.parse(raw.pop("confirmed"))
    return Facts.parse(raw), outline


def answered(facts: Facts, ask: Ask) -> Facts:
    """Return the facts. Raises ValueError when one of the commands has no output."""
    if missing := ask.commands.keys() - facts.commands.keys():
        raise ValueError(f"no output of {', '.join(sorted(missing))}")
    return facts


def line(message: Mapping[str, Any]) -> bytes:
    """Return the line that the agent reads as that message."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def asked(ask: Ask) -> dict[str, Any]:
    """Return the part of a message that asks the questions."""
    commands = {name: list(argv) for name, argv in ask.commands.items()}
    return {"files": list(ask.files), "tools": list(ask.tools), "commands": commands}


def unpacked(packed: str) -> Any:
    """Return the unpacked facts. Raises ValueError, RecursionError, zlib.error."""
    inflate = zlib.decompressobj()
    text = inflate.decompress(base64.b64decode(packed), FACTS_MAX)
    if not inflate.eof:
        raise ValueError(f"the facts are longer than {FACTS_MAX} bytes, or incomplete")
    if text.count(b"{") + text.count(b"[") > _GROUPS_MAX:
        raise ValueError(f"the facts have more than {_GROUPS_MAX} brackets")
    return json.loads(text)
