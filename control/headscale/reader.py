"""Read a map file of headscale strictly. Pure.

headscale decodes such a file with yaml.v3 into structs that have JSON tags only (tailscale:
tailcfg/derpmap.go). So it silently skips a key that is not the Go name in lower case, and accepts
ids that contradict each other. Here each of these is an error, with its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches

import yaml

from control.regions import Regions
from control.yaml_text import plain, tree
from inventory.document import NotYaml, is_merge

_INT, _TEXT, _FLOAT, _BOOL = "a whole number", "text", "a number", "true or false"
_REGION = {
    "regionid": _INT,
    "regioncode": _TEXT,
    "regionname": _TEXT,
    "latitude": _FLOAT,
    "longitude": _FLOAT,
    "avoid": _BOOL,
    "nomeasurenohome": _BOOL,
    "nodes": "a list",
}
_NODE = {
    "name": _TEXT,
    "regionid": _INT,
    "hostname": _TEXT,
    "certname": _TEXT,
    "ipv4": _TEXT,
    "ipv6": _TEXT,
    "stunport": _INT,
    "stunonly": _BOOL,
    "derpport": _INT,
    "insecurefortests": _BOOL,
    "stuntestip": _TEXT,
    "canport80": _BOOL,
}
# headscale reads the first and drops the others.
_TOP = {"regions": "a mapping", "omitdefaultregions": _BOOL, "homeparams": "a mapping"}
_BOOLEANS = ("true", "false", "yes", "no", "on", "off", "y", "n")
_PORTS = {"derpport": 0, "stunport": -1}  # with their lowest values


class BadMap(ValueError):
    """headscale would skip or reject a part of the file.

    `complaints`: the reasons, a sentence each, with the line.
    """

    def __init__(self, complaints: Sequence[str]) -> None:
        super().__init__("; ".join(complaints))
        self.complaints = tuple(complaints)


def parse_map(text: str) -> Regions:
    """Return the regions of a file by id. Raises BadMap with everything that is wrong with it."""
    reader = _Reader()
    try:
        node = tree(text)
        if node is not None and not reader.is_nothing(node):
            reader.top(node)
        if not reader.complaints:
            data = plain(node) or {}
    except NotYaml as error:
        raise BadMap([error.words]) from None
    if reader.complaints:
        raise BadMap(reader.complaints)
    return data.get("regions") or {}


class _Reader:
    """A walk through the tree of one file, which gathers complaints."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.names: dict[str, int] = {}

    def complain(self, node: yaml.Node, words: str) -> None:
        self.complaints.append(f"line {node.start_mark.line + 1}: {words}")

    @staticmethod
    def is_nothing(node: yaml.Node) -> bool:
        return isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")

    def top(self, node: yaml.Node) -> None:
        values = self.section(node, _TOP, "the file")
        regions = values.get("regions")
        if regions is None:
            return
        if not isinstance(regions, yaml.MappingNode):
            self.complain(regions, "regions is not a mapping: each region is under its id")
            return
        seen: set[str] = set()
        for key, value in self.pairs(regions):
            id = self.text(key)
            if id in seen:
                self.complain(key, f"region {id} is here twice")
                continue
            seen.add(id)
            if not re.fullmatch("[1-9][0-9]{0,8}", id):
                self.complain(key, f"{id!r} is not a region id: ids are bare numbers here")
            elif not key.tag.endswith(":int"):
                words = f"the region id {id} is in quotes: headscale stops at it, ids are bare numbers here"
                self.complain(key, words)
            elif not self.is_nothing(value):
                self.region(value, int(id))

    def region(self, node: yaml.Node, id: int) -> None:
        values = self.section(node, _REGION, f"region {id}")
        self.same_id(node, values, id, f"region {id}")
        nodes = values.get("nodes")
        if not isinstance(nodes, yaml.SequenceNode) or not nodes.value:
            if isinstance(node, yaml.MappingNode):
                self.complain(node if nodes is None else nodes, f"region {id} has no list of nodes")
            return
        for item in nodes.value:
            self.node(item, id)

    def node(self, node: yaml.Node, id: int) -> None:
        values = self.section(node, _NODE, f"a node of region {id}")
        if not isinstance(node, yaml.MappingNode):
            return
        self.same_id(node, values, id, f"a node of region {id}")
        for key in ("name", "hostname"):
            if key not in values or not self.text(values[key]):
                self.complain(node, f"a node of region {id} has no {key}")
        name = self.text(values.get("name"))
        if name in self.names:
            words = f"name {name!r} of region {id} is taken by region {self.names[name]}"
            self.complain(values["name"], words)
        elif name:
            self.names[name] = id
        hostname = self.text(values.get("hostname"))
        if any(sign in hostname for sign in "/: "):
            words = f"hostname {hostname!r} has to be a name only, without scheme, port or path"
            self.complain(values["hostname"], words)
        for key, lowest in _PORTS.items():
            port = self.text(values.get(key))
            if re.fullmatch("-?[0-9]{1,9}", port) and not lowest <= int(port) <= 65535:
                self.complain(values[key], f"{key} {port} is not between {lowest} and 65535")

    def same_id(self, node: yaml.Node, values: Mapping[str, yaml.Node], id: int, what: str) -> None:
        own = values.get("regionid")
        if own is None and isinstance(node, yaml.MappingNode):
            self.complain(node, f"{what} has no regionid: without it, clients measure nothing")
        elif own is not None and own.tag.endswith(":int") and self.text(own) != str(id):
            self.complain(own, f"regionid {self.text(own)} is under {id}")

    @staticmethod
    def text(node: yaml.Node | None) -> str:
        return str(node.value) if isinstance(node, yaml.ScalarNode) else ""

    def section(self, node: yaml.Node, known: Mapping[str, str], what: str) -> dict[str, yaml.Node]:
        """Return the values of a mapping by key. Check the keys and the kinds of the values."""
        if not isinstance(node, yaml.MappingNode):
            self.complain(node, f"{what} is not a mapping")
            return {}
        values: dict[str, yaml.Node] = {}
        for key, value in self.pairs(node):
            name = str(getattr(key, "value", ""))
            if name not in known:
                self.complain(key, _unknown(name, known))
            elif name in values:
                self.complain(key, f"{name} is twice in {what}")
            elif not self.is_nothing(value):
                values[name] = value
                self.kind(value, name, known[name])
        return values

    def pairs(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        for key, value in node.value:
            if is_merge(key):
                self.complain(key, "<< is not supported here: write the keys out")
            else:
                yield key, value

    def kind(self, node: yaml.Node, name: str, kind: str) -> None:
        if kind not in _KINDS:
            return
        if not isinstance(node, yaml.ScalarNode) or not _KINDS[kind](node):
            style = node.style if isinstance(node, yaml.ScalarNode) else None
            shown = f"'{node.value}'" if isinstance(node, yaml.ScalarNode) else "this value"
            quoted = " in quotes" if style in ("'", '"') else ""
            self.complain(node, f"{name}: {shown}{quoted} is not {kind}")


# The values that yaml.v3 accepts for each type. Any scalar is text. Booleans have the words of
# YAML 1.1, too.
_KINDS: Mapping[str, Callable[[yaml.ScalarNode], bool]] = {
    _INT: lambda node: node.tag.endswith(":int"),
    _FLOAT: lambda node: node.tag.endswith((":int", ":float")),
    _BOOL: lambda node: not node.style and node.value.lower() in _BOOLEANS,
    _TEXT: lambda node: True,
}


def _unknown(name: str, known: Mapping[str, str]) -> str:
    if name.lower().replace("_", "") in known:
        return f"headscale skips {name!r}: here it is {name.lower().replace('_', '')!r}"
    near = get_close_matches(name.lower(), known, n=1)
    return f"headscale skips {name!r}, which it does not know{f'; did you mean {near[0]!r}?' if near else ''}"
