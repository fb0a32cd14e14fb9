"""ssh's configuration files, with what paramiko's parser of them lacks.

It knows no `Include` and few tokens, and takes a criterion of `Match` that it does not know for
fulfilled.
"""

from __future__ import annotations

import getpass
import re
import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from paramiko.config import SSHConfig, SSHConfigDict

from engine.ssh_options import MATCHES, NotSupported, expand, refuse

DEPTH = 16  # of includes in includes, as with ssh
SYSTEM = Path("/etc/ssh")
_INCLUDE = re.compile(r"include(?:\s*=\s*|\s+)(.+)", re.I)
_BLOCK = re.compile(r"(host|match)(?:\s*=\s*|\s+)(.*)", re.I)
_SETTING = re.compile(r"(\w+)(?:\s*=\s*|\s+)(.+)")
# Their values go to the line's end, with quotes and `#`.
_COMMANDS = ("match", "proxycommand", "knownhostscommand", "localcommand", "remotecommand")
_NO_COMMAND = "none"
_ALWAYS = "Host *"
_BARE = ("all", "canonical", "final")  # criteria without a value


class _Config(SSHConfig):
    """paramiko's parser. Tokens are left as they are, but for those that it needs itself.

    It always reads the lines twice. With ssh a line counts for those after it, and the lines are
    read again only for a canonical name or for `Match final`.
    """

    _config: list[dict[str, Any]]  # paramiko's types leave it out

    TOKENS_BY_CONFIG_KEY = {  # noqa: RUF012 - the parent's
        name: SSHConfig.TOKENS_BY_CONFIG_KEY[name] for name in ("hostname", "match-exec")
    }

    def lookup(self, hostname: str) -> SSHConfigDict:
        """Return the settings for a host. Raises ValueError, paramiko's errors."""
        found = self._lookup(hostname)  # type: ignore[attr-defined]  # paramiko's types leave it out
        criteria = (each["type"] for block in self._config for each in block.get("matches", ()))
        if found.get("canonicalizehostname", "no") != "no" or "final" in criteria:
            return super().lookup(hostname)
        found.setdefault("hostname", hostname)
        # Paramiko's types leave it out.
        expanded: SSHConfigDict = self._expand_variables(found, hostname)  # type: ignore[attr-defined]
        return expanded


def read(files: Sequence[Path], alias: str, given: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings for the host `alias`, in the order of the lines that set them.

    `given`: settings that count before those of the files, as ssh's own options do.
    Raises OSError, ValueError, NotSupported, paramiko's errors.

    A file that is included inside a block counts only if the block is for this host.
    """
    lines = [f"{name} {value}" for name, value in given.items() if value]
    for path in files:
        lines.append(_ALWAYS)
        _add(path, alias, lines, DEPTH)
    found: dict[str, Any] = dict(_Config.from_text("\n".join(lines)).lookup(alias))
    if found.get("proxycommand") == _NO_COMMAND:
        found["proxycommand"] = None
    refuse(found)
    _expand(found, alias)
    return found


def _add(path: Path, alias: str, lines: list[str], depth: int) -> None:
    """Add the lines of a file, and of those that it includes."""
    if not depth:
        raise ValueError(f"{path}: more than {DEPTH} files include each other")
    block = _ALWAYS
    for line in path.read_text(errors="surrogateescape").splitlines():
        words = line.strip()
        if opens := _BLOCK.match(words):
            block = words
            if opens[1].lower() == "match":
                _check_criteria(opens[2])
        if (found := _INCLUDE.fullmatch(words)) is None:
            lines.append(_plain(words))
        elif block == _ALWAYS or _is_for(alias, lines, block):
            for file in _files(found[1], path):
                lines.append(_ALWAYS)
                _add(file, alias, lines, depth - 1)
            lines.append(block)


def _plain(line: str) -> str:
    """Return a line as paramiko reads it: without quotes and comment, and with ssh's patterns."""
    if (found := _SETTING.fullmatch(line)) is None:
        return line
    if (found[1].lower(), found[2].lower()) == ("proxycommand", _NO_COMMAND):
        # In quotes it is a value as any other. Else paramiko lets it replace an earlier line.
        return f'{found[1]} "{_NO_COMMAND}"'
    if found[1].lower() in _COMMANDS:
        return line
    if found[1].lower() == "host":
        return line.replace("[", "[[]")
    return f"{found[1]} {' '.join(shlex.split(found[2], comments=True))}"


def _check_criteria(text: str) -> None:
    """Raise NotSupported for a criterion of `Match` that is not known."""
    words = shlex.split(text, comments=True)
    while words:
        name = words.pop(0).removeprefix("!").lower()
        if name not in MATCHES:
            raise NotSupported(f"`Match {name}` is not supported")
        if name not in _BARE:
            del words[:1]


def _files(words: str, path: Path) -> Iterator[Path]:
    """Yield the files of an `Include` in `path`, in ssh's order, as far as they are there."""
    folder = SYSTEM if path.is_relative_to(SYSTEM) else Path("~/.ssh").expanduser()
    for word in shlex.split(words, comments=True):
        pattern = folder / Path(word).expanduser()
        yield from map(Path, sorted(glob(str(pattern))))  # noqa: PTH207 - an absolute pattern


def _is_for(alias: str, before: list[str], block: str) -> bool:
    """Whether a block counts for the host, after the lines before it."""
    asked = _Config.from_text("\n".join([*before, block, "DerpfleetAsks yes"]))
    return "derpfleetasks" in asked.lookup(alias)


def _expand(found: dict[str, Any], alias: str) -> None:
    """Put values for the tokens of the settings. Raises NotSupported."""
    tokens = {
        "%": "%",
        "d": Path.home(),
        "h": found["hostname"],
        "k": found.get("hostkeyalias", alias),
        "L": socket.gethostname().partition(".")[0],
        "l": socket.gethostname(),
        "n": alias,
        "p": found.get("port", 22),
        "r": found.get("user", getpass.getuser()),
        "u": getpass.getuser(),
    }
    for name in ("proxycommand", "proxyjump"):
        if found.get(name):
            found[name] = expand(found[name], tokens)
    if "identityagent" in found:
        found["identityagent"] = expand(found["identityagent"], tokens, is_path=True)
    files = found.get("identityfile", [])
    found |= {"identityfile": [expand(file, tokens, is_path=True) for file in files]} if files else {}
