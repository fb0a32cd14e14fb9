"""~/.ssh/config with its `Include`, which paramiko's parser does not know."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from glob import glob
from pathlib import Path

from paramiko.config import SSHConfig

DEPTH = 16  # of includes in includes, as with ssh
_INCLUDE = re.compile(r"include(?:\s*=\s*|\s+)(.+)", re.I)
_BLOCK = re.compile(r"(?:host|match)(?:\s*=\s*|\s+)", re.I)
_ALWAYS = "Host *"


def read(path: Path, alias: str) -> SSHConfig:
    """Return the configuration for the host `alias`. Raises OSError, ValueError, paramiko's errors.

    A file that is included inside a block counts only if the block is for this host.
    """
    lines: list[str] = []
    _add(path, alias, lines, DEPTH)
    return SSHConfig.from_text("\n".join(lines))


def _add(path: Path, alias: str, lines: list[str], depth: int) -> None:
    """Add the lines of a file, and of those that it includes."""
    if not depth:
        raise ValueError(f"{path}: more than {DEPTH} files include each other")
    block = _ALWAYS
    for line in path.read_text().splitlines():
        words = line.strip()
        if _BLOCK.match(words):
            block = words
        if (found := _INCLUDE.fullmatch(words)) is None:
            lines.append(line)
        elif block == _ALWAYS or _is_for(alias, lines, block):
            for file in _files(found[1]):
                lines.append(_ALWAYS)
                _add(file, alias, lines, depth - 1)
            lines.append(block)


def _files(words: str) -> Iterator[Path]:
    """Yield the files of an `Include`, in ssh's order. A file that is not there is none."""
    for word in shlex.split(words, comments=True):
        pattern = Path("~/.ssh").expanduser() / Path(word).expanduser()
        yield from map(Path, sorted(glob(str(pattern))))  # noqa: PTH207 - an absolute pattern


def _is_for(alias: str, before: list[str], block: str) -> bool:
    """Whether a block counts for the host, after the lines before it."""
    asked = SSHConfig.from_text("\n".join([*before, block, "DerpfleetAsks yes"]))
    return "derpfleetasks" in asked.lookup(alias)
