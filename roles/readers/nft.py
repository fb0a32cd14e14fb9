"""Read what `nft --stateless list ruleset` prints: which chains close a port to everyone. Pure.

Every base chain of a hook decides, so an accept in our table opens no port that these close. Rules
become those of `roles.readers.chains`; a word that is not known here leaves the answer open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from roles.readers.chains import Packet, Rule, is_closed

_OF_IPTABLES = re.compile(r"ip6? (?:filter|nat|mangle|raw|security)")
_FAMILIES: Mapping[str, tuple[int, ...]] = {"inet": (4, 6), "ip": (4,), "ip6": (6,)}
# Longer rules leave the answer open: a host may print anything.
_RULES_MAX = 1 << 20
_WORDS_MAX = 100  # of one rule
_TABLE = re.compile(r"table ((\S+) (\S+)) \{$")
_CHAIN = re.compile(r"\tchain (\S+) \{$")
_BASE = re.compile(r"type filter hook input priority [^;]+;(?: policy (accept|drop);)?$")
_VALUE = r"(!= )?(?:\{ ([^{}]*) \}|([^\s{}]+))"
_PORT = re.compile(rf"(tcp|udp|th) ([ds]port) {_VALUE}")
# The start of a match, and the name that iptables has for it.
_MATCHES = {
    re.compile(rf"(?:meta l4proto|ip protocol|ip6 nexthdr) {_VALUE}"): "-p",
    re.compile(rf"ct state {_VALUE}"): "--ctstate",
    re.compile(rf"iif(?:name)? {_VALUE}"): "-i",
    re.compile(rf"ip saddr {_VALUE}"): "-s",
}
_ICMP = re.compile(rf"(icmp(?:v6)?) (?:type|code) {_VALUE}")
_BY_VALUE = re.compile(r"(?:(tcp|udp|th) dport|ct state) vmap \{ ([^{}]*) \}$")
_SAYS_NOTHING = re.compile(
    r'counter(?: packets \d+ bytes \d+)?|log(?: (?:prefix "[^"]*"|(?:level|group|flags|snaplen) \w+))*'
)
_VERDICT = re.compile(r"(?:(accept|drop|return|reject)(?: with .*)?|(?:jump|goto) (\S+))$")
_DECIDES = re.compile(r"\b(?:accept|drop|return|reject|jump|goto|vmap|queue|redirect|dnat|tproxy)\b")

_Match = tuple[str, str, bool]
_Table = tuple[str, str, Mapping[str, str], Mapping[str, list[Rule]]]
_UNKNOWN: _Match = ("?", "", False)


@dataclass(frozen=True)
class BaseChain:
    """A chain of the hook `input`, as nft's commands name it."""

    family: str
    table: str
    name: str

    def __str__(self) -> str:
        """Return `inet filter input`."""
        return f"{self.family} {self.table} {self.name}"


def native(ruleset: str, *, ours: str, has_iptables: bool) -> str:
    """Return the rules that are nft's own: neither our table nor what iptables-save prints."""
    return "\n".join(
        line
        for table, lines in _blocks(ruleset.split("\n"), _TABLE, "}")
        if table[1] != f"inet {ours}" and not (has_iptables and _OF_IPTABLES.fullmatch(table[1]))
        for line in (table[0], *lines, "}")
    )


def _blocks(
    lines: Iterable[str], start: re.Pattern[str], end: str
) -> Iterator[tuple[re.Match[str], list[str]]]:
    """Yield each block: its first line as `start` found it, and the lines until `end`."""
    found: re.Match[str] | None = None
    inside: list[str] = []
    for line in lines:
        if found is None:
            found, inside = start.match(line), []
        elif line == end:
            yield found, inside
            found = None
        else:
            inside.append(line)


def closing(ruleset: str, proto: str, port: int, *, version: int) -> list[BaseChain]:
    """Return the chains that are certain to close a port to strangers of that version of IP."""
    packet, found = Packet(proto, port, "NEW"), []
    for family, table, policies, chains in _tables(ruleset):
        for name, policy in policies.items():
            try:
                closed = version in _FAMILIES[family] and is_closed(chains, name, policy, packet)
            except (ValueError, KeyError):  # a way of printing that is not known here
                closed = False
            if closed:
                found.append(BaseChain(family, table, name))
    return found


@lru_cache(maxsize=2)
def _tables(ruleset: str) -> list[_Table]:
    """Return (family, table, {base chain: policy}, {chain: rules}) of each table."""
    found: list[_Table] = []
    text = ruleset if len(ruleset) <= _RULES_MAX else ""
    whole = re.sub(r",\n\s+", ", ", text).split("\n")  # long sets are broken
    for table, body in _blocks(whole, _TABLE, "}"):
        if table[2] not in _FAMILIES:
            continue
        policies: dict[str, str] = {}
        chains: dict[str, list[Rule]] = {}
        for chain, lines in _blocks(body, _CHAIN, "\t}"):
            name = chain[1]
            chains[name] = []
            for line in map(str.strip, lines):
                if base := _BASE.match(line):
                    policies[name] = (base[1] or "accept").upper()
                elif not line.startswith("type "):
                    chains[name] += _rules(re.sub(r'\s?comment "[^"]*"$', "", line))
        found.append((table[2], table[3], policies, chains))
    return found


def _rules(line: str) -> Iterator[Rule]:
    """Yield the rules that one line makes: one, or one for each entry of a map, or none."""
    matches: list[_Match] = []
    rest = line
    for _ in range(_WORDS_MAX):
        if not rest:
            break
        if verdict := _VERDICT.match(rest):
            yield Rule(tuple(matches), (verdict[1] or "").upper() or verdict[2])
            return
        if by_value := _BY_VALUE.match(rest):
            yield from _entries(by_value[1], by_value[2], matches)
            return
        if nothing := _SAYS_NOTHING.match(rest):
            rest = rest[nothing.end() :].lstrip()
            continue
        found, length = _first(rest)
        matches += found
        rest = rest[length:].lstrip()
    if _DECIDES.search(re.sub(r'"[^"]*"', "", line)):
        yield Rule((*matches, _UNKNOWN), "?")


def _first(text: str) -> tuple[list[_Match], int]:
    """Return the first match of a rule, and its length. A word that is not known matches some."""
    if port := _PORT.match(text):
        proto = [] if port[1] == "th" else [("-p", port[1], False)]
        return [*proto, _value(f"--{port[2]}", *port.groups()[2:])], port.end()
    if icmp := _ICMP.match(text):
        return [("-p", icmp[1], False)], icmp.end()
    for pattern, option in _MATCHES.items():
        if match := pattern.match(text):
            return [_value(option, *match.groups())], match.end()
    return [_UNKNOWN], len(text.split(maxsplit=1)[0])


def _value(option: str, negated: str | None, several: str | None, one: str | None) -> _Match:
    value = (several or one or "").replace(", ", ",").replace('"', "")
    is_set = "@" in value or (several is not None and option in ("-i", "-s"))
    return _UNKNOWN if is_set else (option, value.upper() if option == "--ctstate" else value, bool(negated))


def _entries(proto: str | None, entries: str, matches: list[_Match]) -> Iterator[Rule]:
    """Yield a rule for each entry `value : verdict` of a map. Without `proto` it is by state."""
    for value, verdict in re.findall(r"(?<![^\s,:])([^\s,:]++) : ([a-z]+(?: [^\s,]+)?)", entries):
        key: list[_Match] = [] if proto in (None, "th") else [("-p", str(proto), False)]
        key.append(("--ctstate", value.upper(), False) if proto is None else ("--dport", value, False))
        target = verdict.partition(" ")[2] or verdict.upper()
        yield Rule((*matches, *key), target)
