"""A person's YAML file, changed where necessary and left alone everywhere else. Pure.

`patch(text, wanted)` returns a text that reads as `wanted` and differs from `text` only in the
values that differ. Comments, order, quotes, indentation and blank lines of the rest stay to the
byte. A parser that writes the whole file anew cannot promise that. The result is read again, and
anything but `wanted` is refused.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from inventory.document import NotYaml, compose, is_merge, scalar

_MAX_VALUES = 10_000  # of a file on a host, which may be anything; aliases of aliases grow without bound


class CannotPatch(ValueError):
    """The file is written in a way that cannot be changed in place."""


def plain(node: yaml.Node | None) -> Any:
    """Return the node's data. Keys keep their type, as headscale's region ids are integers.

    Raises NotYaml, also for a key that is there twice, and for more than 10,000 values.
    """
    try:
        return None if node is None else _plain(node, [_MAX_VALUES])
    except RecursionError:
        raise NotYaml(None, "an alias leads back to itself") from None


def tree(text: str) -> yaml.Node | None:
    """Return the tree of nodes of a file on a host.

    Raises NotYaml, also for more than 10,000 values.
    """
    return compose(text, most=_MAX_VALUES)


def _plain(node: yaml.Node, left: list[int]) -> Any:
    """Return the node's data. `left`: how many more values may come."""
    left[0] -= 1
    if left[0] < 0:
        raise NotYaml(node.start_mark.line + 1, f"there are more than {_MAX_VALUES} values, with its aliases")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, left) for item in node.value]
    if isinstance(node, yaml.ScalarNode):
        return scalar(node)
    result: dict[Any, Any] = {}
    for key, value in node.value:
        if is_merge(key):
            continue
        if not isinstance(key, yaml.ScalarNode):
            raise NotYaml(key.start_mark.line + 1, "a key is a word, not a list or a mapping")
        name = scalar(key)
        if name in result:
            raise NotYaml(key.start_mark.line + 1, f"the key {key.value} is here twice")
        result[name] = _plain(value, left)
    for key, value in node.value:
        if is_merge(key):
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    raise NotYaml(source.start_mark.line + 1, "<< takes a mapping, or a list of mappings")
                result = {**_plain(source, left), **result}
    return result


def patch(text: str, wanted: dict[Any, Any]) -> str:
    """Return `text`, changed so that it reads as `wanted`.

    Raises NotYaml, or CannotPatch when the text would have to be written anew.
    """
    node = tree(text)
    if _same(plain(node), wanted):
        return text
    edits = _Edits(text)
    if isinstance(node, yaml.MappingNode):
        try:
            edits.mapping(node, wanted)
        except ValueError:  # a key without a colon behind it, as `? key`
            raise CannotPatch("the file has a key without a colon") from None
    elif node is None or plain(node) is None:
        edits.insert(len(text), "\n".join(block(wanted)))
    else:
        raise CannotPatch("the file is no mapping")
    result = edits.applied()
    try:
        if _same(plain(tree(result)), wanted):
            return result
    except NotYaml:
        pass
    raise CannotPatch("the file uses YAML in a way that cannot be changed in place")


def block(mapping: dict[Any, Any], column: int = 0) -> list[str]:
    """Return the lines of block YAML.

    Text is quoted as in JSON, which is also YAML. So no text is read as a number or a boolean.
    """
    lines = []
    for key, value in mapping.items():
        head = f"{' ' * column}{_key(key)}:"
        if isinstance(value, dict) and value:
            lines += [head, *block(value, column + 2)]
        elif isinstance(value, list) and value:
            lines += [head, *(line for item in value for line in _item(item, column + 2))]
        else:
            lines.append(f"{head} {flow(value)}")
    return lines


def flow(value: Any) -> str:
    """Return YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(key: Any) -> str:
    return key if isinstance(key, str) and key.isidentifier() else flow(key)


def _item(value: Any, column: int) -> list[str]:
    if not isinstance(value, dict) or not value:
        return [f"{' ' * column}- {flow(value)}"]
    first, *rest = block(value, column + 2)
    return [f"{' ' * column}- {first.lstrip()}", *rest]


def _same(a: Any, b: Any) -> bool:
    """Whether both are equal and of the same types: to a reader of YAML, 1, 1.0 and true differ."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        pairs = zip(sorted(a, key=str), sorted(b, key=str), strict=False)
        return len(a) == len(b) and all(type(x) is type(y) and x == y and _same(a[x], b[y]) for x, y in pairs)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


class _Edits:
    """Replacements of spans of one text, collected first and applied from the end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.newline = "\r\n" if "\r\n" in text else "\n"
        self.spans: list[tuple[int, int, str]] = []

    def applied(self) -> str:
        parts, at = [], 0
        # The sort is stable: insertions at one place keep their order.
        for start, end, new in sorted(self.spans, key=lambda span: span[:2]):
            parts += [self.text[at:start], new]
            at = max(at, end)
        return "".join([*parts, self.text[at:]])

    def insert(self, at: int, lines: str) -> None:
        """Insert whole lines behind the line break at `at`, or at the end of the text."""
        glue = self.newline if at == len(self.text) and not self.text.endswith("\n") and self.text else ""
        self.spans.append((at, at, glue + lines.replace("\n", self.newline) + self.newline))

    def mapping(self, node: yaml.MappingNode, wanted: dict[Any, Any]) -> None:
        own = [(scalar(key), key, value) for key, value in node.value if not is_merge(key)]
        for index, (name, key, value) in enumerate(own):
            if name not in wanted:
                starts, ends = [key for _, key, _ in own], [value for _, _, value in own]
                self.remove(starts, ends, index, flow_style=node.flow_style)
            elif not _same(plain(value), wanted[name]):
                self.value(value, wanted[name], colon=key.end_mark.index, in_flow=node.flow_style)
        have = plain(node)
        added = {name: value for name, value in wanted.items() if name not in have}
        if added:
            self.extend(node, flow(added), block(added, node.start_mark.column))

    def sequence(self, node: yaml.SequenceNode, wanted: list[Any]) -> None:
        for item, value in zip(node.value, wanted, strict=False):
            if not _same(plain(item), value):
                self.value(item, value, colon=None, in_flow=node.flow_style)
        for index in range(len(wanted), len(node.value)):
            self.remove(node.value, node.value, index, flow_style=node.flow_style)
        added = wanted[len(node.value) :]
        if added:
            lines = [line for item in added for line in _item(item, node.start_mark.column)]
            self.extend(node, flow(added), lines)

    def value(self, node: yaml.Node, wanted: Any, *, colon: int | None, in_flow: bool) -> None:
        """Replace a value, going down as far as both are collections of the same kind.

        `colon`: the end of the key before the value; None for an item of a sequence.
        """
        can_grow = isinstance(node, yaml.MappingNode) and (node.value or in_flow)
        if can_grow and isinstance(node, yaml.MappingNode) and isinstance(wanted, dict) and wanted:
            # An item of a sequence of which no key stays is written anew: without its first line it
            # would lose its dash.
            keeps_key = any(scalar(key) in wanted for key, _ in node.value)
            loses_dash = colon is None and not in_flow and not keeps_key
            if not loses_dash:
                return self.mapping(node, wanted)
        has_style = isinstance(node, yaml.CollectionNode) and (node.value or node.flow_style)
        if has_style and isinstance(node, yaml.SequenceNode) and isinstance(wanted, list) and wanted:
            return self.sequence(node, wanted)
        start, end = node.start_mark.index, self.end(node)
        if isinstance(wanted, dict) and wanted and colon is not None and not in_flow:
            # A mapping goes onto its own lines. A comment behind the old value stays on its line.
            column = len(self.line_of(colon)) - len(self.line_of(colon).lstrip(" -")) + 2
            self.spans.append((self.text.index(":", colon) + 1, end, ""))
            return self.insert(self.line_end(end), "\n".join(block(wanted, column)))
        if colon is not None and start == end:  # there is no value
            return self.spans.append((end, end, " " + flow(wanted)))
        if colon is not None and not getattr(node, "flow_style", True):
            start = self.text.index(":", colon) + 1
            return self.spans.append((start, end, " " + flow(wanted)))
        return self.spans.append((start, end, flow(wanted)))

    def remove(self, starts: list[yaml.Node], ends: list[yaml.Node], index: int, *, flow_style: bool) -> None:
        """Remove entry `index` of a collection. `starts`, `ends`: the end nodes of each entry."""
        start = starts[index].start_mark.index
        if not flow_style:
            first = self.text.rfind("\n", 0, start) + 1
            has_dash = self.text[first:start].strip() and starts is not ends
            if has_dash and index + 1 < len(starts):  # the dash stays, for the next key
                self.spans.append((start, starts[index + 1].start_mark.index, ""))
            else:
                self.spans.append((first, self.line_end(self.end(ends[index])), ""))
        elif index + 1 < len(starts):
            self.spans.append((start, starts[index + 1].start_mark.index, ""))
        else:
            self.spans.append((self.end(ends[index - 1]) if index else start, self.end(ends[index]), ""))

    def extend(self, node: yaml.CollectionNode, on_one_line: str, lines: list[str]) -> None:
        """Add entries to a collection in its own style.

        They are given twice: `on_one_line` with its brackets, and as `lines` of block YAML.
        """
        if not node.flow_style:
            return self.insert(self.end_of_entry(node, node.start_mark.column), "\n".join(lines))
        at = self.end(_last(node)) if node.value else node.start_mark.index + 1
        entries = on_one_line[1:-1]
        return self.spans.append((at, at, f", {entries}" if node.value else entries))

    def end_of_entry(self, node: yaml.Node, column: int) -> int:
        """Return where the line behind the node begins.

        Comments that are indented deeper than `column` still belong to the node.
        """
        end = here = self.line_end(self.end(node))
        while here < len(self.text):
            line = self.line_of(here)
            if line.strip() and not line.lstrip().startswith("#"):
                break
            here = self.line_end(here)
            if line.lstrip().startswith("#") and len(line) - len(line.lstrip()) > column:
                end = here
        return end

    def line_end(self, at: int) -> int:
        found = self.text.find("\n", at)
        return len(self.text) if found < 0 else found + 1

    def line_of(self, at: int) -> str:
        start = self.text.rfind("\n", 0, at) + 1
        return self.text[start : self.line_end(at)].rstrip("\r\n")

    def end(self, node: yaml.Node) -> int:
        """Return the end of the node's last character.

        The parser's own end of a block is behind the comments and blank lines after it.
        """
        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            return self.end(_last(node))
        end = int(node.end_mark.index)
        if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
            end = len(self.text[:end].rstrip("\r\n"))
        return end


def _last(node: yaml.CollectionNode) -> yaml.Node:
    last: yaml.Node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return last
