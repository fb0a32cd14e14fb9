"""Pinned host keys: OpenSSH's file, read and edited line by line.

The file may be the operator's own, with marks, comments and keys that paramiko does not know.
Those are neither used nor lost.
"""

from __future__ import annotations

from pathlib import Path

from paramiko import HostKeys, PKey, SSHException
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey


def read(path: Path) -> HostKeys:
    """Return the keys that `path` pins; none when there is no such file. Raises OSError."""
    return parse(path.read_text(errors="surrogateescape")) if path.exists() else HostKeys()


def parse(text: str) -> HostKeys:
    """Return the keys of the usable lines. Of two keys of one kind for a host, the first counts."""
    keys = HostKeys()
    for line in text.splitlines():
        if (entry := _entry(line)) is None:
            continue
        for name in entry.hostnames:
            if entry.key.get_name() not in (keys.lookup(name) or {}):
                keys.add(name, entry.key.get_name(), entry.key)
    return keys


def pin(text: str, name: str, key: PKey) -> str:
    """Return the file's text with `key` as the only key of the host `name`.

    The lines of other hosts stay the same to the byte.
    """
    lines, place = [], None
    for line in text.splitlines(keepends=True):
        names = entry.hostnames if (entry := _entry(line)) else []
        left = [other for other in names if not _is(other, name)]
        if left == names:
            lines.append(line)
            continue
        place = len(lines) if place is None else place
        if left:
            lines.append(line.replace(line.split(maxsplit=1)[0], ",".join(left), 1))
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    lines.insert(len(lines) if place is None else place, f"{name} {key.get_name()} {key.get_base64()}\n")
    return "".join(lines)


def _entry(line: str) -> HostKeyEntry | None:
    """Return the entry of a line that pins a key of a kind that paramiko knows, else None.

    Comments and lines with a mark (`@cert-authority`, `@revoked`) give None.
    """
    words = line.split()
    if not words or words[0].startswith(("#", "@")):
        return None
    try:
        return HostKeyEntry.from_line(" ".join(words))
    except (SSHException, InvalidHostKey):
        return None


def _is(written: str, name: str) -> bool:
    return written == name or (written.startswith("|1|") and HostKeys.hash_host(name, written) == written)
