"""Go's flag package, as far as derper's command line needs it: syntax, values, error texts.

`-name=value`, `-name value`, `--name`, booleans as `-name` or `-name=false`; `--` ends the flags.
Knows nothing of the relay.
Sources: Go's `flag`, `strconv.ParseInt`/`ParseBool`/`ParseFloat` and `time.ParseDuration`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_BOOL = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
_INT = re.compile(
    r"[+-]?(0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO](_?[0-7])+|0(_?[0-7])*|[1-9](_?[0-9])*)", re.ASCII
)
_FLOAT = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity|nan)", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_INT64 = 2**63 - 1


class FlagError(ValueError):
    """A command line that cannot be used; the text is what Go's flag package would print."""


class HelpWanted(Exception):
    """`-h` or `-help` was given and is no flag of the program."""


def parse_bool(text: str) -> bool:
    if text not in _BOOL:
        raise ValueError("parse error")
    return _BOOL[text]


def parse_int(text: str) -> int:
    """Parse a 64-bit integer in Go's literal forms: 10, 0x0a, 0b1010, 0o12, 012, 1_000."""
    if not _INT.fullmatch(text):
        raise ValueError("parse error")
    digits = text.replace("_", "").lower()
    bare = digits.lstrip("+-")
    octal = len(bare) > 1 and bare[0] == "0" and bare[1].isdigit()
    value = int(digits, 8 if octal else 0)
    if not -_MAX_INT64 - 1 <= value <= _MAX_INT64:
        raise ValueError("value out of range")
    return value


def parse_float(text: str) -> float:
    if not _FLOAT.fullmatch(text):
        raise ValueError("parse error")
    return float(text)


def parse_duration(text: str) -> float:
    """Parse Go's duration (`10m`, `1h30m`, `1.5s`, `250ms`, `0`); return seconds."""
    if text.lstrip("+-") == "0" and len(text) < 3:
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError("parse error")
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))
    if seconds * 1e9 > _MAX_INT64:
        raise ValueError("parse error")
    return -seconds if text[0] == "-" else seconds


def parse_list(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list; blanks around the entries and empty entries do not count."""
    return tuple(entry for entry in (part.strip() for part in text.split(",")) if entry)


def format_duration(seconds: float) -> str:
    """Return seconds as Go prints a duration: `10m0s`, `1.5s`, `250ms`, `0s`."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if 0 < seconds < 1:
        for unit, size in (("ms", 1e-3), ("µs", 1e-6)):
            if seconds >= size:
                return f"{seconds / size:.9g}{unit}"
        return f"{seconds * 1e9:.0f}ns"
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{rest:.9g}s"
    if hours or minutes:
        text = f"{minutes:.0f}m{text}"
    return f"{hours:.0f}h{text}" if hours else text


def quote(text: str) -> str:
    """Return text in Go's %q form, near enough for a message."""
    return json.dumps(text, ensure_ascii=False)


def split_host_port(address: str) -> tuple[str, str]:
    """Split `host:port`, `[v6]:port` or `:port`, as Go's net.SplitHostPort does.

    Raises ValueError in its words.
    """
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        raise ValueError(f"address {address}: missing port in address")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"address {address}: too many colons in address")
    if "[" in host or "]" in host or "]" in port:
        raise ValueError(f"address {address}: unexpected bracket in address")
    return host, port


def parse_argv(
    argv: Sequence[str], setters: Mapping[str, Callable[[str], Any]]
) -> tuple[dict[str, Any], list[str]]:
    """Read flags from `argv` (without the program's name) until the first argument that is none.

    `setters` maps each flag's name to the parser of its text; `parse_bool` marks a boolean flag.
    Returns the values by name (the last one given wins) and the remaining arguments. Raises
    FlagError, HelpWanted.
    """
    values: dict[str, Any] = {}
    rest = list(argv)
    while rest and len(rest[0]) > 1 and rest[0][0] == "-":
        argument = rest.pop(0)
        name = argument[2:] if argument.startswith("--") else argument[1:]
        if not name:
            break  # "--"
        if name[0] in "-=":
            raise FlagError(f"bad flag syntax: {argument}")
        name, equals, text = name.partition("=")
        if name not in setters:
            if name in ("h", "help"):
                raise HelpWanted
            raise FlagError(f"flag provided but not defined: -{name}")
        setter = setters[name]
        boolean = setter is parse_bool
        if not equals:
            if boolean:
                text = "true"
            elif rest:
                text = rest.pop(0)
            else:
                raise FlagError(f"flag needs an argument: -{name}")
        try:
            values[name] = setter(text)
        except ValueError as e:
            what = "boolean value {} for" if boolean else "value {} for flag"
            raise FlagError(f"invalid {what.format(quote(text))} -{name}: {e}") from None
    return values, rest
