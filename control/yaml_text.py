"""A person's YAML file, changed where it must be and left alone everywhere else. Pure.

`patch(text, wanted)` gives a text that reads as `wanted` and differs from `text` only in the values that differ: comments, order, quotes,
indentation and blank lines of the rest stay to the byte, which a parser that writes the whole file anew cannot promise.
What comes out is read again, and anything but `wanted` is refused.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from inventory.document import NotYaml, compose, is_merge, scalar


class CannotPatch(ValueError):
    """The file is written in a way that cannot be changed in place."""


def plain(node: yaml.Node | None) -> Any:
    """The node's data; keys keep their type (headscale's region ids are integers). Raises NotYaml, also for a key that stands twice."""
    try:
        return None if node is None else _plain(node)
    except RecursionError:
        raise NotYaml(None, "an alias leads back to itself") from None


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
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
            raise NotYaml(key.start_mark.line + 1, f"the key {key.value} stands here twice")
        result[name] = _plain(value)
    for key, value in node.value:
        if is_merge(key):
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    raise NotYaml(source.start_mark.line + 1, "<< takes a mapping, or a list of mappings")
                result = {**_plain(source), **result}
    return result


def patch(text: str, wanted: dict[Any, Any]) -> str:
    """`text`, changed so that it reads as `wanted`. Raises NotYaml, or CannotPatch when it would have to be written anew."""
    node = compose(text)
    if _same(plain(node), wanted):
        return text
    edits = _Edits(text)
    if isinstance(node, yaml.MappingNode):
        edits.mapping(node, wanted)
    elif node is None or plain(node) is None:
        edits.insert(len(text), "\n".join(block(wanted)))
    else:
        raise CannotPatch("the file is no mapping")
    result = edits.applied()
    try:
        if _same(plain(compose(result)), wanted):
            return result
    except NotYaml:
        pass
    raise CannotPatch("the file uses YAML in a way that cannot be changed in place")


def block(mapping: dict[Any, Any], column: int = 0) -> list[str]:
    """Lines of block YAML. Text is quoted as in JSON, which is YAML, too: no word of it is ever taken for a number or a boolean."""
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
    """YAML on one line."""
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
    """Equal, and of the same types: to a reader of YAML, 1, 1.0 and true differ."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            type(x) is type(y) and x == y and _same(a[x], b[y]) for x, y in zip(sorted(a, key=str), sorted(b, key=str), strict=True)
        )
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
        for start, end, new in sorted(self.spans, key=lambda span: span[:2]):  # stable: what goes in at one place keeps its order
            parts += [self.text[at:start], new]
            at = max(at, end)
        return "".join([*parts, self.text[at:]])

    def insert(self, at: int, lines: str) -> None:
        """Whole lines, behind the line break at `at` or at the text's end."""
        glue = self.newline if at == len(self.text) and not self.text.endswith("\n") and self.text else ""
        self.spans.append((at, at, glue + lines.replace("\n", self.newline) + self.newline))

    def mapping(self, node: yaml.MappingNode, wanted: dict[Any, Any]) -> None:
        own = [(scalar(key), key, value) for key, value in node.value if not is_merge(key)]
        for index, (name, key, value) in enumerate(own):
            if name not in wanted:
                self.remove([key for _, key, _ in own], [value for _, _, value in own], index, flow_style=node.flow_style)
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
            self.extend(node, flow(added), [line for item in added for line in _item(item, node.start_mark.column)])

    def value(self, node: yaml.Node, wanted: Any, *, colon: int | None, in_flow: bool) -> None:
        """Replaces a value, going down as far as both are collections of one kind. `colon`: the end of the key that it stands behind."""
        if isinstance(node, yaml.MappingNode) and isinstance(wanted, dict) and wanted and (node.value or in_flow):
            # An item of a sequence of which no key stays is written anew: without its first line the dash would be gone, too.
            loses_dash = colon is None and not in_flow and not any(scalar(key) in wanted for key, _ in node.value)
            if not loses_dash:
                return self.mapping(node, wanted)
        if isinstance(node, yaml.SequenceNode) and isinstance(wanted, list) and wanted and (node.value or node.flow_style):
            return self.sequence(node, wanted)
        start, end = node.start_mark.index, self.end(node)
        if isinstance(wanted, dict) and wanted and colon is not None and not in_flow:
            # a mapping goes onto lines of its own; what stands behind the old value on its line, a comment, stays there
            column = len(self.line_of(colon)) - len(self.line_of(colon).lstrip(" -")) + 2
            self.spans.append((self.text.index(":", colon) + 1, end, ""))
            return self.insert(self.line_end(end), "\n".join(block(wanted, column)))
        if colon is not None and start == end:  # nothing stands there
            return self.spans.append((end, end, " " + flow(wanted)))
        if colon is not None and not getattr(node, "flow_style", True):
            start = self.text.index(":", colon) + 1
            return self.spans.append((start, end, " " + flow(wanted)))
        return self.spans.append((start, end, flow(wanted)))

    def remove(self, starts: list[yaml.Node], ends: list[yaml.Node], index: int, *, flow_style: bool) -> None:
        """Entry `index` of a collection whose entries begin with `starts` and end with `ends`."""
        start = starts[index].start_mark.index
        if not flow_style:
            first = self.text.rfind("\n", 0, start) + 1
            if self.text[first:start].strip() and index + 1 < len(starts) and starts is not ends:  # the dash stays, for the next key
                self.spans.append((start, starts[index + 1].start_mark.index, ""))
            else:
                self.spans.append((first, self.line_end(self.end(ends[index])), ""))
        elif index + 1 < len(starts):
            self.spans.append((starts[index].start_mark.index, starts[index + 1].start_mark.index, ""))
        else:
            self.spans.append((self.end(ends[index - 1]) if index else starts[index].start_mark.index, self.end(ends[index]), ""))

    def extend(self, node: yaml.CollectionNode, on_one_line: str, lines: list[str]) -> None:
        """Add entries to a collection, in its own style: `on_one_line` with its brackets, or `lines` of block YAML."""
        if not node.flow_style:
            return self.insert(self.end_of_entry(node, node.start_mark.column), "\n".join(lines))
        at = self.end(_last(node)) if node.value else node.start_mark.index + 1
        entries = on_one_line[1:-1]
        return self.spans.append((at, at, f", {entries}" if node.value else entries))

    def end_of_entry(self, node: yaml.Node, column: int) -> int:
        """Where the line behind the node begins; comments that are indented deeper than `column` still belong to it."""
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
        """Where the node's last character stands. The parser's own end of a block lies behind the comments and blank lines after it."""
        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            return self.end(_last(node))
        end = int(node.end_mark.index)
        if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
            end = len(self.text[:end].rstrip("\r\n"))
        return end


def _last(node: yaml.CollectionNode) -> yaml.Node:
    last: yaml.Node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return last
