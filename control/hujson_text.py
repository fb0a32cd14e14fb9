"""A person's HuJSON, changed where necessary and left alone everywhere else. Pure.

Each change inserts or removes whole entries, or replaces a value. All other characters stay: other
entries with their commas, comments, blanks, the letter case of keys. Hence a new entry goes to the
end where the last entry has a comma, and otherwise to the beginning. The lines of a removed entry
go as well, when nothing else is on them; its comments stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from control.hujson import Element, Value, folded, parse, standard

_BLANKS = re.compile(r"[ \t]*")
# blanks and comments up to the end of a line
_REST_OF_LINE = re.compile(r"(?:[ \t]|/\*(?:[^*\n]|\*(?!/))*\*/)*(?://[^\n]*)?\r?\n")


def put(text: str, path: Sequence[str], value: Any) -> str:
    """Return the text with `value` at this path of keys. Objects on the way are made if missing.

    Keys are found in any letter case, and keep it. Raises NotHujson.
    """
    root = parse(text)
    edits, node = _Changes(root), root
    for index, key in enumerate(path):
        if node.entries is None and node.plain() is None:  # null, as if it was not there
            edits.become(node, _nested(path[index:], value))
            break
        entry = node.find(key)
        if entry is None:
            edits.insert(node, {key: _nested(path[index + 1 :], value)})
            break
        node = entry.value
    else:
        edits.become(node, value)
    return edits.applied()


def remove(text: str, path: Sequence[str]) -> str:
    """Return the text without the entry at this path, which may be missing. Raises NotHujson."""
    node = parse(text)
    edits, entry = _Changes(node), None
    for key in path:
        if node.entries is None:
            return text
        entry = node.find(key)
        if entry is None:
            return text
        node = entry.value
    if entry is not None:
        edits.remove(entry)
    return edits.applied()


def _nested(path: Sequence[str], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


class _Changes:
    """Replacements of spans of one text, which do not overlap."""

    def __init__(self, root: Value) -> None:
        self.text = root.text
        self.newline = "\r\n" if "\r\n" in self.text else "\n"
        # Plain JSON stays plain JSON.
        self.last_comma = "," if standard(self.text) != self.text else ""
        first = root.entries[0].start if root.entries else 0
        self.unit = (self.indent(first) if self.begins_line(first) else "") or "\t"
        self.spans: list[tuple[int, int, str]] = []

    def applied(self) -> str:
        parts, at = [], 0
        for start, end, new in sorted(self.spans, key=lambda span: span[:2]):
            parts += [self.text[at:start], new]
            at = end
        return "".join([*parts, self.text[at:]])

    def become(self, node: Value, wanted: Any) -> None:
        """Change a value to the wanted one, entry by entry as far as both are of one kind."""
        if node.entries is not None and node.is_object and isinstance(wanted, dict):
            left = {folded(key): (key, value) for key, value in wanted.items()}
            for entry in node.entries:
                same = left.pop(folded(str(entry.key)), None)
                if same is None:
                    self.remove(entry)
                else:
                    self.become(entry.value, same[1])
            self.insert(node, dict(left.values()))
        elif node.entries is not None and isinstance(wanted, list) and len(node.entries) == len(wanted):
            for entry, value in zip(node.entries, wanted, strict=True):
                self.become(entry.value, value)
        elif json.dumps(node.plain()) != json.dumps(wanted):
            self.spans.append((node.start, node.end, self.shown(wanted, self.indent(node.start))))

    def insert(self, node: Value, entries: Mapping[str, Any]) -> None:
        """Add members to an object, on lines of their own unless all of it is on one line."""
        old, close = node.entries or (), node.end - 1
        if not entries:
            return
        at_end = bool(old and old[-1].comma is not None)
        if (at_end or not old) and self.begins_line(close):
            at: int | None = close - len(self.indent(close))
        else:
            begin = None if at_end else _REST_OF_LINE.match(self.text, node.start + 1)
            at = begin.end() if begin and old else None
        if at is not None:
            text = self.lines(node, entries) + ("," if old else self.last_comma) + self.newline
            self.spans.append((at, at, text))
        elif not self.text[node.start + 1 : close].strip():  # {}
            text = self.lines(node, entries) + self.last_comma + self.newline + self.indent(node.start)
            self.spans.append((node.start + 1, close, self.newline + text))
        else:
            words = ", ".join(f"{_key(key)}: {json.dumps(value)}" for key, value in entries.items())
            at = close if at_end or not old else node.start + 1
            text = f" {words}," if at_end else f"{words}, " if old else words
            self.spans.append((at, at, text))

    def lines(self, node: Value, entries: Mapping[str, Any]) -> str:
        """Return members of an object, indented as its first one, without the last comma."""
        first = node.entries[0].start if node.entries else node.start
        deep = bool(node.entries) and self.begins_line(first)
        indent = self.indent(first) if deep else self.indent(node.start) + self.unit
        return f",{self.newline}".join(
            f"{indent}{_key(key)}: {self.shown(value, indent)}" for key, value in entries.items()
        )

    def remove(self, entry: Element) -> None:
        """Remove an entry with the comma behind it."""
        start, end = entry.start, entry.value.end
        if entry.comma is not None and not self.text[end : entry.comma].strip():
            end = entry.comma + 1
        elif entry.comma is not None:  # a comment is between
            self.spans.append((entry.comma, entry.comma + 1, ""))
        blank = _BLANKS.match(self.text, end)
        behind = blank.end() if blank else end
        if self.begins_line(start) and self.text.startswith(("\n", "\r\n"), behind):
            start, end = start - len(self.indent(start)), self.text.index("\n", behind) + 1
        elif not self.text.startswith(("/", "\n", "\r"), behind):
            end = behind
        self.spans.append((start, end, ""))

    def shown(self, value: Any, indent: str) -> str:
        """Return a value over several lines, the first of which begins with `indent`."""
        if not value or not isinstance(value, dict | list):
            return json.dumps(value, ensure_ascii=False)
        inner = indent + self.unit
        if isinstance(value, dict):
            items = [f"{_key(key)}: {self.shown(item, inner)}" for key, item in value.items()]
        else:
            items = [self.shown(item, inner) for item in value]
        lines = f",{self.newline}".join(inner + item for item in items)
        open, close = "{}" if isinstance(value, dict) else "[]"
        return f"{open}{self.newline}{lines}{self.last_comma}{self.newline}{indent}{close}"

    def begins_line(self, at: int) -> bool:
        """Whether only blanks are before `at` on its line."""
        start = self.text.rfind("\n", 0, at) + 1
        return not self.text[start:at].strip(" \t")

    def indent(self, at: int) -> str:
        """Return the blanks with which the line of `at` begins, as far as `at`."""
        match = _BLANKS.match(self.text, self.text.rfind("\n", 0, at) + 1, at)
        return match[0] if match else ""


def _key(key: str) -> str:
    return json.dumps(key, ensure_ascii=False)
