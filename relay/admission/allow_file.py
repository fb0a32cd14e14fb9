"""The allow list: a file of node keys, one per line, read again when it changes.

    # laptop
    nodekey:64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466
    883186b800b41d5cf0429695da9b3cc4f328ebcd184a6e482fa578c103f06c77  phone

`nodekey:` may be missing, and the text behind the key is a comment. A file that becomes unreadable
or wrong changes nothing: the last good list stays in force.

The file of -prober-keys has the same form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from relay.core.handshake import parse_hex_key
from relay.keys.node_key import KeyFileError, read_private_file
from relay.log import Log

KIND: Final = "allow file"
PROBER_KIND: Final = "prober key file"
MAX_SIZE: Final = 16 * 1024 * 1024
_log = Log("admission")


class AllowFileError(KeyFileError):
    """An allow file that cannot be used; names the file and the line."""


def parse_allow_list(text: str) -> frozenset[bytes]:
    """Return the node keys, 32 bytes each. Raises ValueError, which names the line."""
    keys = set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        try:
            keys.add(parse_hex_key(words[0].removeprefix("nodekey:")))
        except ValueError as e:
            raise ValueError(f"line {number} {e}") from None
    return frozenset(keys)


class AllowFile:
    """The list in a file. `generation` counts its changes; `kind` is the file's name in messages.

    Raises AllowFileError if the first list cannot be used.
    """

    def __init__(self, path: str, kind: str = KIND) -> None:
        self.path = Path(path)
        self.kind = kind
        self.generation = 0
        self._seen: tuple[int, int, int, int] | None = self._stamp()
        self._keys = self._read()

    def allows(self, key: bytes) -> bool:
        """Whether the key is on the list as it is now."""
        self.refresh()
        return key in self._keys

    def refresh(self) -> None:
        """Read the file again if it has changed. A bad one is logged once; the old list stays."""
        try:
            stamp = self._stamp()
        except AllowFileError as e:
            if self._seen is not None:
                _log.warning(f"{self.kind} cannot be read, the last list stays in force", why=e)
                self._seen = None
            return
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            keys = self._read()
        except AllowFileError as e:
            _log.warning(f"{self.kind} cannot be used, the last list stays in force", why=e)
            return
        if keys != self._keys:
            added, removed = len(keys - self._keys), len(self._keys - keys)
            _log.info(f"{self.kind} read", keys=len(keys), added=added, removed=removed)
            self._keys = keys
            self.generation += 1

    def _stamp(self) -> tuple[int, int, int, int]:
        """Return values of which at least one changes with the file."""
        try:
            status = self.path.stat()
        except OSError as e:
            raise AllowFileError(f"{self.kind} {self.path}: {e.strerror}") from None
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size

    def _read(self) -> frozenset[bytes]:
        size = self._stamp()[-1]
        if size > MAX_SIZE:
            raise AllowFileError(f"{self.kind} {self.path} is larger than {MAX_SIZE >> 20} MiB")
        return read_private_file(
            self.path, parse_allow_list, kind=self.kind, encoding="utf-8", error=AllowFileError
        )
