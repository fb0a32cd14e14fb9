"""Structured logs: a constant message and named fields. Plain text, JSON lines or journal fields.

    log = Log("server")
    log.info("client admitted", key=text, address=address)

Messages are counted and searched for, so they never contain data. One that repeats faster than once
a second (after a burst of 20) is held back and counted, and the next that passes has the count in
`suppressed`: strangers must not be able to fill a disk. Other logging of the process (asyncio's
own) is treated the same.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, TextIO

from relay.core.bucket import Bucket

JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
IDENTIFIER: Final = "derp-relay"
MAX_VALUE: Final = 512  # characters of one field
_MAX_MESSAGES: Final = 256
_PRIORITY: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
_BARE: Final = re.compile(r"[!#-<>-~]+")  # printable, without blank, quote and equals sign


class Log:
    """A part's log, `relay.<part>` to the logging module.

    Fields may be of any type: str() makes them text.
    """

    def __init__(self, part: str) -> None:
        self._logger = logging.getLogger(f"relay.{part}")

    def debug(self, message: str, **fields: object) -> None:
        self._logger.debug(message, extra={"fields": fields})

    def info(self, message: str, **fields: object) -> None:
        self._logger.info(message, extra={"fields": fields})

    def warning(self, message: str, **fields: object) -> None:
        self._logger.warning(message, extra={"fields": fields})

    def error(self, message: str, **fields: object) -> None:
        self._logger.error(message, extra={"fields": fields})

    def unforeseen(self, message: str, error: BaseException, **fields: object) -> None:
        """Log an error with the exception, whose type and text are a field."""
        self._logger.error(message, exc_info=error, extra={"fields": fields})


def set_up(
    form: str,
    *,
    level: int = logging.INFO,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send all logging of this process to `stream` (stderr) or the journal.

    `form`: auto, plain, json or journal.
    """
    out = sys.stderr if stream is None else stream
    handler: logging.Handler = logging.StreamHandler(out)
    if form == "journal" or (form == "auto" and _is_journal(out, environ)):
        handler = JournalHandler(handler)
    handler.setFormatter(JsonFormatter() if form == "json" else PlainFormatter())
    handler.addFilter(HoldBack())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream is the one that systemd connected to the journal.

    Its device and inode are in JOURNAL_STREAM then.
    """
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino)) and Path(JOURNAL_SOCKET).exists()


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """Return a record's fields as text, each cut to MAX_VALUE characters.

    An exception's text is one of them.
    """
    fields: dict[str, Any] = dict(getattr(record, "fields", {}))
    if record.exc_info and record.exc_info[0]:
        fields["exception"] = f"{record.exc_info[0].__name__}: {record.exc_info[1]}"
    suppressed = getattr(record, "suppressed", 0)
    if suppressed:
        fields["suppressed"] = suppressed
    return {name: str(value)[:MAX_VALUE] for name, value in fields.items()}


class PlainFormatter(logging.Formatter):
    """A line: `warning client refused reason=not_in_allow_file address=203.0.113.7`.

    Values with blanks are quoted.
    """

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()} {_sentence(record)}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (RFC 3339, UTC), level, part, message, and the fields.

    Fields cannot replace these four.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc)
        head = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "part": record.name.removeprefix("relay."),
            "message": record.getMessage(),
        }
        return json.dumps({**fields_of(record), **head})


def _sentence(record: logging.LogRecord) -> str:
    """Return the message and, behind it, the fields: they say why."""
    words = [_one_line(record.getMessage())]
    words += [
        f"{name}={value if _BARE.fullmatch(value) else json.dumps(value)}"
        for name, value in fields_of(record).items()
    ]
    return " ".join(words)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


class JournalHandler(logging.Handler):
    """Records with their fields (`DERP_REASON=…`) for the journal.

    Those that it refuses go to `fallback`.

    The protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL.
    """

    def __init__(self, fallback: logging.Handler, address: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self._fallback = fallback
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def setFormatter(self, fmt: logging.Formatter | None) -> None:
        self._fallback.setFormatter(fmt)

    def emit(self, record: logging.LogRecord) -> None:
        entries = {
            "MESSAGE": _sentence(record),  # journalctl shows nothing else unless it is asked
            "PRIORITY": str(_PRIORITY.get(record.levelno, 6)),
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            "LOGGER": record.name,
        }
        entries.update((f"DERP_{name.upper()}", value) for name, value in fields_of(record).items())
        try:
            self._socket.sendto(
                b"".join(pack_journal_field(*entry) for entry in entries.items()), self._address
            )
        except OSError:
            self._fallback.emit(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


def pack_journal_field(name: str, value: str) -> bytes:
    """Pack one field. A value with line breaks has its length in front."""
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


class HoldBack(logging.Filter):
    """A filter that lets a message pass 20 times at once and then once a second.

    `suppressed` is the number of those between.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._held: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, str(record.msg))
        bucket = self._buckets.get(key)
        if bucket is None:
            # Our own messages are constants, so these are another library's.
            if len(self._buckets) >= _MAX_MESSAGES:
                self._buckets.clear()
                self._held.clear()
            bucket = self._buckets[key] = Bucket(1, 20, record.created)
        if not bucket.allow(record.created):
            self._held[key] = self._held.get(key, 0) + 1
            return False
        record.suppressed = self._held.pop(key, 0)
        return True
