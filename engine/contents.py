"""Contents for a host: those that come with the plan, and how much it has of one that was cut."""

from __future__ import annotations

import base64
import hashlib
import io
import zlib
from pathlib import Path

from engine.generations import Outline
from engine.plan import Plan, revealed
from engine.resource import Content

AHEAD_MAX = 1 << 20  # bytes; with the plan they fit a window of OpenSSH's, which is 2 MiB


def ahead(plan: Plan, newest: Outline) -> dict[str, str]:
    """Return the contents that come with the plan: {sha256: base64 of zlib}.

    These are what no generation of the host has, as far as there is room. The agent would ask for
    them, and that is a turn. A host without a generation is asked: it may have any of them.
    """
    found, room = dict[str, str](), AHEAD_MAX
    if plan.mode == "check" or not newest.generation:
        return found
    for digest, content in plan.blobs.items():
        if newest.has(digest) or _size(content) > room:
            continue
        whole = revealed(content)
        data = whole if isinstance(whole, bytes) else whole.read_bytes()
        found[digest] = base64.b64encode(zlib.compress(data)).decode()
        room -= len(data)
    return found


def held(content: bytes | Path, length: int, sha256: str) -> int:
    """Return how much of the content the host has: so many bytes, if it begins with these, or 0."""
    if not length:
        return 0
    digest = hashlib.sha256()
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while length > file.tell() and (piece := file.read(min(length - file.tell(), 1 << 20))):
            digest.update(piece)
        return length if file.tell() == length and digest.hexdigest() == sha256 else 0


def _size(content: Content) -> int:
    whole = revealed(content)
    return len(whole) if isinstance(whole, bytes) else whole.stat().st_size
