"""Read HuJSON: JSON with comments and trailing commas, in which Tailscale's policies are written.

Pure. The tree has the place of each value in the text, for `control.hujson_text`. It takes the same
texts as Tailscale's own reader (github.com/tailscale/hujson, parse.go), but for values that are
nested more than 100 deep.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

_MAX_DEPTH = 100
_BLANK = re.compile(r"(?:[ \t\r\n]+|//[^\n]*\n|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"')
_WORD = re.compile(r"[-+.0-9A-Za-z]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_TOKEN = re.compile(rf"{_STRING.pattern}|(?P<comment>//[^\n]*\n|/\*.*?\*/)", re.DOTALL)
_LAST_COMMA = re.compile(rf"{_STRING.pattern}|(?P<comma>,)(?=[ \t\r\n]*[\]}}])")
_WORDS = {"true": True, "false": False, "null": None}
_LONGEST_INT = 18  # digits; Python refuses very long ones


class NotHujson(ValueError):
    """The text is no HuJSON, or has another shape than is needed.

    The message begins with the line and the column, which is counted in characters.
    """

    def __init__(self, text: str, at: int, message: str) -> None:
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        super().__init__(f"line {line}, column {column}: {message}")


class Element(NamedTuple):
    """A member of an object, or an item of an array, which has no key.

    `start`: where its key or its value begins. `comma`: where the comma behind it is, if any.
    """

    key: str | None
    start: int
    value: Value
    comma: int | None


@dataclass(frozen=True, slots=True)
class Value:
    """A value from `start` to `end` of its text. `entries` is None for one without parts."""

    text: str
    start: int
    end: int
    entries: tuple[Element, ...] | None = None

    @property
    def is_object(self) -> bool:
        """Whether it is an object."""
        return self.text[self.start] == "{"

    def find(self, key: str) -> Element | None:
        """Return the member of this key; as Go reads it, in any case.

        Raises NotHujson for a value that is no object, and for a key that is there twice.
        """
        if not self.is_object:
            raise NotHujson(self.text, self.start, f"an object with {key} is needed here")
        found = [entry for entry in self.entries or () if folded(str(entry.key)) == folded(key)]
        if len(found) > 1:
            raise _twice(self.text, found[0], found[1])
        return found[0] if found else None

    def plain(self) -> Any:
        """Return the data. Of a key that is there twice the last value counts, as for Go."""
        if self.entries is None:
            return _scalar(self.text[self.start : self.end])
        if self.is_object:
            return {entry.key: entry.value.plain() for entry in self.entries}
        return [entry.value.plain() for entry in self.entries]


def folded(key: str) -> str:
    """Return one spelling for all cases of a key: Go finds the fields of a struct in any."""
    return key.casefold()


def parse(text: str) -> Value:
    """Return the tree of a text. Raises NotHujson."""
    value = _value(text, _skip(text, 0), 0)
    end = _skip(text, value.end)
    if end != len(text):
        raise NotHujson(text, end, f"{text[end]!r} is behind the end of the value")
    return value


def standard(text: str) -> str:
    """Return HuJSON as plain JSON of the same data, in which each value keeps its place.

    Comments and last commas become blanks.
    """

    def blanked(match: re.Match[str]) -> str:
        return re.sub(r"[^\r\n]", " ", match[0]) if match.lastgroup else match[0]

    return _LAST_COMMA.sub(blanked, _TOKEN.sub(blanked, text))


def _skip(text: str, at: int) -> int:
    """Return where blanks and comments end. Raises NotHujson for a comment without an end."""
    match = _BLANK.match(text, at)
    end = match.end() if match else at
    if text.startswith(("//", "/*"), end):
        ending = "a line break" if text.startswith("//", end) else "*/"
        raise NotHujson(text, end, f"the comment that begins here does not end with {ending}")
    return end


def _value(text: str, at: int, depth: int) -> Value:
    if depth > _MAX_DEPTH:
        raise NotHujson(text, at, f"values are nested more than {_MAX_DEPTH} deep")
    if text.startswith("{", at):
        return _parts(text, at, "}", lambda here: _member(text, here, depth))
    if text.startswith("[", at):
        return _parts(text, at, "]", lambda here: (None, _value(text, here, depth + 1)))
    match = _STRING.match(text, at) or _WORD.match(text, at)
    if match is None:
        seen = repr(text[at]) if at < len(text) else "the end of the text"
        raise NotHujson(text, at, f"a value is missing before {seen}")
    try:
        _scalar(match[0])
    except ValueError:
        raise NotHujson(text, at, f"{match[0][:40]} is no value of JSON") from None
    return Value(text, at, match.end())


def _parts(text: str, start: int, close: str, part: Callable[[int], tuple[str | None, Value]]) -> Value:
    """Return an object or an array. `part` reads the key and the value that begin at a place."""
    entries: list[Element] = []
    at = _skip(text, start + 1)
    while not text.startswith(close, at):
        if entries and entries[-1].comma is None:
            raise NotHujson(text, at, f"a comma or {close} is missing")
        key, value = part(at)
        end = _skip(text, value.end)
        comma = end if text.startswith(",", end) else None
        entries.append(Element(key, at, value, comma))
        at = end if comma is None else _skip(text, comma + 1)
    return Value(text, start, at + 1, tuple(entries))


def _member(text: str, at: int, depth: int) -> tuple[str, Value]:
    match = _STRING.match(text, at)
    if match is None:
        raise NotHujson(text, at, "a key in double quotes or } is missing")
    try:
        key = str(json.loads(match[0]))
    except ValueError:
        raise NotHujson(text, at, f"{match[0][:40]} is no key of JSON") from None
    colon = _skip(text, match.end())
    if not text.startswith(":", colon):
        raise NotHujson(text, colon, f"a colon is missing behind the key {key}")
    return key, _value(text, _skip(text, colon + 1), depth + 1)


def _scalar(written: str) -> Any:
    """Return a string, a number, true, false or null. Raises ValueError."""
    if written.startswith('"'):
        return json.loads(written)
    if written in _WORDS:
        return _WORDS[written]
    if not _NUMBER.fullmatch(written):
        raise ValueError(written)
    return int(written) if written.lstrip("-").isdigit() and len(written) <= _LONGEST_INT else float(written)


def duplicates(value: Value) -> Iterator[NotHujson]:
    """Yield each key of an object in the tree that is there twice, in any case."""
    seen: dict[str, Element] = {}
    for entry in value.entries or ():
        if entry.key is not None and (first := seen.setdefault(folded(entry.key), entry)) is not entry:
            yield _twice(value.text, first, entry)
        yield from duplicates(entry.value)


def _twice(text: str, first: Element, second: Element) -> NotHujson:
    line = text.count("\n", 0, first.start) + 1
    words = f"{second.key} is here a second time: {first.key} is in line {line} already"
    return NotHujson(text, second.start, words)
