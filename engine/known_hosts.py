"""Pinned host keys: OpenSSH's file, read and edited line by line.

The file may be the operator's own, with marks, patterns, comments, keys that paramiko does not
know, and lines that no program can read. Only usable lines count, and no line is lost.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from paramiko import PKey, RSAKey
from paramiko.pkey import UnknownKeyType

REVOKED, AUTHORITY = "@revoked", "@cert-authority"
RSA_BITS = 1024  # OpenSSH's default of RequiredRSASize
_SHA1_SIZE = 20


@dataclass(frozen=True)
class _Entry:
    """A usable line. `key` is None for a kind that paramiko does not know, and beside a mark."""

    mark: str
    names: Sequence[str]
    blob: bytes
    key: PKey | None = None


@dataclass(frozen=True)
class Pins:
    """The keys of a file. `skipped` names each line that cannot be used, and why."""

    entries: Sequence[_Entry] = ()
    skipped: Sequence[str] = ()

    def keys(self, name: str) -> list[PKey]:
        """Return the keys that are pinned for a host and not revoked, in the file's order."""
        found = [entry.key for entry in self.entries if not entry.mark and _fits(entry.names, name)]
        return [key for key in found if key is not None and not self.is_revoked(name, key)]

    def is_revoked(self, name: str, key: PKey) -> bool:
        """Whether a line says that this key of the host must never be accepted."""
        blob = key.asbytes()
        revoked = (entry for entry in self.entries if entry.mark == REVOKED)
        return any(entry.blob == blob and _fits(entry.names, name) for entry in revoked)

    def has_authority(self, name: str) -> bool:
        """Whether a line pins an authority for the host's certificates, which we do not check."""
        return any(entry.mark == AUTHORITY and _fits(entry.names, name) for entry in self.entries)


class _Unusable(Exception):
    """The line cannot be used. The text says why."""


def read(path: Path) -> Pins:
    """Return the keys that `path` pins; none when there is no such file. Raises OSError."""
    return parse(path.read_bytes().decode(errors="surrogateescape")) if path.exists() else Pins()


@lru_cache(maxsize=4)
def parse(text: str) -> Pins:
    """Return the keys of the usable lines. Never raises.

    Every login of a site needs the same text: two hundred lines take 5 ms.
    """
    entries: list[_Entry] = []
    skipped: list[str] = []
    for number, line in enumerate(_lines(text), 1):
        try:
            entry = _entry(line)
        except _Unusable as error:
            skipped.append(f"line {number}: {error}")
        else:
            entries += [entry] if entry else []
    return Pins(entries, skipped)


def pin(text: str, name: str, key: PKey) -> str:
    """Return the file's text with `key` as the only key of the host `name`.

    The lines of other hosts stay the same to the byte, as do patterns and lines with a mark.
    """
    lines, place = [], None
    for line in _lines(text):
        names = _names(line)
        left = [other for other in names if not _is(other, name)]
        if left == names:
            lines.append(line)
            continue
        place = len(lines) if place is None else place
        if left:
            lines.append(line.replace(",".join(names), ",".join(left), 1))
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    lines.insert(len(lines) if place is None else place, f"{name} {key.get_name()} {key.get_base64()}\n")
    return "".join(lines)


def _lines(text: str) -> list[str]:
    """Return the lines with their ends. For OpenSSH only \\n ends a line."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _words(line: str) -> list[str]:
    """Return the words of a line. For OpenSSH only spaces and tabs are between words."""
    return [word for word in re.split(r"[ \t]+", line.strip(" \t\r\n")) if word]


def _names(line: str) -> Sequence[str]:
    """Return the names that a usable line without a mark pins a key for."""
    try:
        entry = _entry(line)
    except _Unusable:
        return []
    return entry.names if entry and entry.key and not entry.mark else []


def _entry(line: str) -> _Entry | None:
    """Return a line's entry. None for an empty line or a comment. Raises _Unusable."""
    words = _words(line)
    if not words or words[0].startswith("#"):
        return None
    mark = words.pop(0) if words[0].startswith("@") else ""
    if mark not in ("", REVOKED, AUTHORITY):
        raise _Unusable(f"the mark {mark!a} is not known")
    if len(words) < 3:
        raise _Unusable("a host, the kind of a key and the key are expected")
    names = words[0].split(",")
    if any(name.startswith("|") and _hash(name) is None for name in names):
        raise _Unusable("the hashed name is cut off")
    try:
        blob = base64.b64decode(words[2], validate=True)
    except ValueError as error:
        raise _Unusable(f"the key is not base64: {error}") from None
    return _Entry(mark, names, blob, None if mark else _key(words[1], blob))


def _key(kind: str, blob: bytes) -> PKey | None:
    """Return the key. None for a kind that paramiko does not know. Raises _Unusable."""
    try:
        key = PKey.from_type_string(kind, blob)
    except UnknownKeyType:
        return None
    except Exception as error:  # paramiko raises whatever its parsers run into
        raise _Unusable(f"the key cannot be read: {str(error) or type(error).__name__}") from None
    if key.asbytes() != blob:  # paramiko fills up what is missing at the end
        raise _Unusable("the key cannot be read: it is cut off")
    if isinstance(key, RSAKey) and key.get_bits() < RSA_BITS:
        raise _Unusable(f"the RSA key has {key.get_bits()} bits, and {RSA_BITS} are the least")
    return key


def _fits(names: Sequence[str], name: str) -> bool:
    """Whether a line is for a host: by name, hash or pattern, and by none that begins with `!`."""
    found = {written.startswith("!") for written in names if _fit(written.removeprefix("!"), name)}
    return found == {False}


def _fit(written: str, name: str) -> bool:
    if "*" in written or "?" in written:
        pattern = re.escape(written.lower()).replace(r"\*", ".*").replace(r"\?", ".")
        return re.fullmatch(pattern, name.lower(), re.DOTALL) is not None
    return _is(written, name)


def _is(written: str, name: str) -> bool:
    if (hashed := _hash(written)) is None:
        return written.lower() == name.lower()
    salt, digest = hashed
    return hmac.compare_digest(hmac.digest(salt, name.lower().encode(), "sha1"), digest)


def _hash(written: str) -> tuple[bytes, bytes] | None:
    """Return salt and digest of a hashed name `|1|salt|digest`, or None if it is none."""
    parts = written.split("|")
    if len(parts) != 4 or parts[:2] != ["", "1"]:
        return None
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in parts[2:])
    except ValueError:
        return None
    return (salt, digest) if len(salt) == len(digest) == _SHA1_SIZE else None
