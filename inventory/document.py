"""YAML text into plain data, with the line of every value. Pure.

The types are YAML 1.2's core types, as editors and headscale read them: `no` is text, `010` is ten,
a date is text. PyYAML's own types are those of YAML 1.1, where the region code `no` is False.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]

_MAX_VALUES = 100_000  # aliases of aliases grow without bound
_MAX_DIGITS = 100
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's way to have a class's own resolvers

    def __init__(self, text: str, most: int) -> None:
        super().__init__(text)
        self.most = self.left = most

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.left -= 1
        if self.left < 0:
            raise NotYaml(self.line + 1, f"there are more than {self.most} values")
        node: yaml.Node | None = super().compose_node(parent, index)
        # An escape can make half a character, which no text may have.
        half = re.search("[\ud800-\udfff]", node.value) if isinstance(node, yaml.ScalarNode) else None
        if node and half:
            raise NotYaml(node.start_mark.line + 1, _not_allowed(half[0]))
        return node


_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _tag, re.compile(rf"^(?:{_pattern})$"), _first)


class NotYaml(ValueError):
    """The text is not YAML, or not the part of YAML that is read here. `line` counts from 1."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message

    @property
    def words(self) -> str:
        """Return the message behind its line, if that is known."""
        return f"line {self.line}: {self.message}" if self.line else self.message


@dataclass(frozen=True)
class Document:
    """A document as plain data.

    `data` is made of dict (with keys of text), list, str, int, float, bool and None.
    `lines` has the line of each value, by its path. A value below a mapping has its key's line.
    `faults` are (path, line, message) of errors that a reader must not ignore.
    """

    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[tuple[Path, int, str]] = field(default_factory=list)


def compose(text: str, *, most: int = _MAX_VALUES) -> yaml.Node | None:
    """Return the tree of nodes, each with its place in the text; None for an empty document.

    Raises NotYaml, also when there are more than `most` nodes.
    """
    try:
        node = _Loader(text, most).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NotYaml(line, _not_allowed(text[error.position])) from None
    except NotYaml:
        raise
    except (ValueError, OverflowError):  # of chr(), in PyYAML
        raise NotYaml(None, "a character has a number beyond U+10FFFF") from None
    except RecursionError:
        raise NotYaml(None, "values are nested too deeply") from None
    return node if isinstance(node, yaml.Node) else None


def _not_allowed(character: str) -> str:
    return f"the character U+{ord(character):04X} is not allowed in YAML"


def parse(text: str) -> Document:
    """Return the document. Raises NotYaml."""
    document = Document(data=None)
    node = compose(text)
    if node is None:
        return document
    return Document(_Builder(document).build(node, (), node.start_mark), document.lines, document.faults)


def scalar(node: yaml.ScalarNode) -> Any:
    """Return the value of a scalar node: str, int, float, bool or None.

    Raises NotYaml for a tag that is not read here.
    """
    kind, text = node.tag.removeprefix(_TAG), node.value
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int" and len(text) > _MAX_DIGITS:
        raise NotYaml(node.start_mark.line + 1, f"a number has more than {_MAX_DIGITS} digits")
    if kind == "int":
        return int(text.removeprefix("0o").removeprefix("0x"), {"0x": 16, "0o": 8}.get(text[:2], 10))
    if kind == "float":
        return float(re.sub(r"^([-+]?)\.(?=[a-zA-Z])", r"\1", text))
    if kind in ("str", "merge"):
        return text
    raise NotYaml(node.start_mark.line + 1, f"the tag {node.tag!r} has no meaning here")


def is_merge(node: yaml.Node) -> bool:
    """Whether this key is `<<`."""
    return node.tag == _TAG + "merge"


class _Builder:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.open: list[yaml.Node] = []
        self.taken = 0  # pairs that were merged, however often

    def build(self, node: yaml.Node, path: Path, mark: yaml.Mark) -> Any:
        self.document.lines.setdefault(path, mark.line + 1)
        if len(self.document.lines) > _MAX_VALUES:
            raise NotYaml(mark.line + 1, f"there are more than {_MAX_VALUES} values")
        if node in self.open:
            raise NotYaml(mark.line + 1, "this alias leads back to itself")
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                items = enumerate(node.value)
                return [self.build(item, (*path, index), item.start_mark) for index, item in items]
            assert isinstance(node, yaml.ScalarNode)  # noqa: S101 - there is no fourth kind
            return scalar(node)
        finally:
            self.open.pop()

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, int] = {}
        merged: list[tuple[yaml.Node, yaml.Node]] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if is_merge(key):
                merged += self.merged(value)
                continue
            name = self.key(key)
            if name in result:
                message = f"this key is here twice, first on line {first[name]}"
                self.document.faults.append(((*path, name), line, message))
                continue
            first[name] = line
            result[name] = self.build(value, (*path, name), key.start_mark)
        for key, value in merged:
            if (name := self.key(key)) not in result:
                result[name] = self.build(value, (*path, name), key.start_mark)
        return result

    def merged(self, value: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """Yield the pairs behind `<<:`, a mapping or a list of mappings.

        The first of two equal keys counts.
        """
        for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if not isinstance(source, yaml.MappingNode):
                raise NotYaml(source.start_mark.line + 1, "<< takes a mapping, or a list of mappings")
            if source in self.open:
                raise NotYaml(source.start_mark.line + 1, "this alias leads back to itself")
            for key, item in source.value:
                self.taken += 1
                if self.taken > _MAX_VALUES:
                    raise NotYaml(key.start_mark.line + 1, f"<< brings in more than {_MAX_VALUES} values")
                if not is_merge(key):
                    yield key, item
            self.open.append(source)
            for key, item in source.value:
                if is_merge(key):
                    yield from self.merged(item)
            self.open.pop()

    @staticmethod
    def key(node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise NotYaml(node.start_mark.line + 1, "a key is a word, not a list or a mapping")
        return str(node.value)


def _not_yaml(error: yaml.MarkedYAMLError) -> NotYaml:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else None
    problem = error.problem or "not YAML"
    if "'\\t'" in problem:
        problem = "there is a tab where only spaces are allowed: indent YAML with spaces"
    elif "expected a single document" in str(error.context):
        problem = "a second document begins here (---); one file holds one"
    elif problem == "mapping values are not allowed here":
        problem = (
            "a colon is not allowed here: check how the line above is indented, "
            "or put a value with ': ' in quotes"
        )
    elif error.context:
        problem = f"{error.context}: {problem}"
    return NotYaml(line, problem)
