"""Read what `iptables-save` prints: whether a host's own rules close a port to everyone. Pure.

Every base chain of a hook decides, so an accept in our table opens no port that these rules close.
Only certainty counts: a rule that may let some in, by source, interface or a match that is not
known here, leaves the answer open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

Verdict = Literal["open", "closed", "return", "unknown"]
_ENDS: Mapping[str, Verdict] = {"ACCEPT": "open", "DROP": "closed", "REJECT": "closed", "RETURN": "return"}
_GO_ON = ("", "LOG", "NFLOG", "MARK", "CONNMARK", "TRACE")
_SAYS_NOTHING = (
    "-m",
    "--comment",
    "--reject-with",
    "--log-prefix",
    "--log-level",
    "--set-mark",
    "--set-xmark",
)
_NOT_FROM_OUTSIDE = ("lo", "tailscale", "wg", "tun", "docker", "br-", "veth", "virbr")
# Longer rules, and longer walks through them, leave the answer open: a host may print anything.
_SAVED_MAX = 1 << 20
_STEPS_MAX = 50_000
_WORD = re.compile(r'"((?:\\.|[^"\\]+)*+)"|(\S+)')
_TAILNET = re.compile(r"100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.")  # 100.64.0.0/10


@dataclass(frozen=True)
class _Rule:
    """A rule of a chain: its matches as (option, value, negated), and its target."""

    matches: tuple[tuple[str, str, bool], ...]
    target: str


class _Packet(NamedTuple):
    """A stranger's first packet. `state`: what the kernel's tracking calls it."""

    proto: str
    port: int
    state: str


def closes(saved: str, proto: str, port: int) -> bool:
    """Whether a stranger's first packet to a port is certain to be dropped or rejected.

    That is decided by the chain INPUT of the table filter.
    """
    return _closes(saved, _Packet(proto, port, "NEW"))


def closes_untracked(saved: str, proto: str, port: int) -> bool:
    """Whether a port is open to strangers only as long as the kernel tracks its connections."""
    return _closes(saved, _Packet(proto, port, "UNTRACKED")) and not closes(saved, proto, port)


def translates(saved: str, proto: str, port: int, own: Iterable[str]) -> bool:
    """Whether a rule of the table nat leads packets away from a port, or to it.

    `own`: the host's addresses. Docker's rules lead to other addresses.
    """
    for rule in _rules_of(saved, "nat"):
        if rule.target not in ("REDIRECT", "DNAT", "NETMAP", "TPROXY"):
            continue
        values = {option: value for option, value, _ in rule.matches}
        if values.get("-p", proto) != proto:
            continue
        address, _, inside = values.get("--to-destination", "").rpartition(":")
        ends = [values.get("--dport", ""), values.get("--dports", ""), values.get("--to-ports", "")]
        ends.append(inside if address.strip("[]") in (*own, "127.0.0.1", "::1") else "")
        if any(_has(text, port) for text in ends if text):
            return True
    return False


def _has(ports: str, port: int) -> bool:
    """Whether `ports`, as `80,443`, `80:90` or `80-90`, has the port."""
    parts = (part.replace("-", ":").partition(":") for part in ports.split(","))
    return any(int(first) <= port <= int(last or first) for first, _, last in parts)


def _rules_of(saved: str, wanted: str) -> Iterator[_Rule]:
    """Yield the rules of a table. A line that cannot be read is left out."""
    for line in _lines_of(saved[:_SAVED_MAX], wanted):
        if line.startswith("-A ") and not _is_torn(line):
            yield _rule(_words(line)[2:])


def _lines_of(saved: str, wanted: str) -> Iterator[str]:
    """Yield the lines of a table: its chains, rules and COMMIT."""
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif table == wanted:
            yield line


def _closes(saved: str, packet: _Packet) -> bool:
    try:
        policies, chains = _filter_table(saved)
        verdict = _Walk(chains, packet).through("INPUT")
    except (ValueError, KeyError):  # no such chain, or a way of printing that is not known here
        return False
    return (_ENDS.get(policies["INPUT"]) if verdict == "return" else verdict) == "closed"


@lru_cache(maxsize=2)
def _filter_table(saved: str) -> tuple[dict[str, str], dict[str, list[_Rule]]]:
    """Return policy and rules of each chain of the table filter. Raises ValueError, KeyError."""
    if len(saved) > _SAVED_MAX:
        raise ValueError("too long")
    policies: dict[str, str] = {}
    chains: dict[str, list[_Rule]] = {}
    for line in _lines_of(saved, "filter"):
        if line.startswith(":"):
            name, policy, *_ = line[1:].split()
            policies[name], chains[name] = policy, []
        elif line.startswith("-A "):
            _, name, *words = _words(line)
            chains[name].append(_rule(words))
    return policies, chains


def _is_torn(line: str) -> bool:
    """Whether a quote of the line has no end."""
    return re.sub(r"\\.", "", line).count('"') % 2 == 1


def _words(line: str) -> list[str]:
    """Return the words of a rule, without the quotes that iptables-save puts around some."""
    return [re.sub(r"\\(.)", r"\1", quoted) or bare for quoted, bare in _WORD.findall(line)]


def _rule(words: list[str]) -> _Rule:
    options = list(_options(words))
    target = next((value for option, value, _ in options if option in ("-j", "-g")), "")
    return _Rule(tuple(item for item in options if item[0] not in ("-j", *_SAYS_NOTHING)), target)


def _options(words: list[str]) -> Iterator[tuple[str, str, bool]]:
    """Yield (option, value, negated), as in `! -i lo` or `--dport 22`.

    An option without a value has "".
    """
    negated, option, values = False, "", list[str]()
    for word in [*words, "!"]:
        if word != "!" and not word.startswith("-"):
            values.append(word)
            continue
        if option:
            yield option, " ".join(values), negated
        negated, option, values = (True, "", []) if word == "!" else (negated and not option, word, [])


class _Walk:
    """The way of one packet through the chains."""

    def __init__(self, chains: Mapping[str, list[_Rule]], packet: _Packet) -> None:
        self.chains, self.packet, self.steps = chains, packet, 0

    def through(self, name: str, depth: int = 0) -> Verdict:
        """Return what a chain does with the packet."""
        if depth > 10:
            return "unknown"
        for rule in self.chains[name]:
            self.steps += 1
            if self.steps > _STEPS_MAX:
                return "unknown"
            hits = [_hits(match, self.packet) for match in rule.matches]
            if False in hits or rule.target in _GO_ON:
                continue
            verdict: Verdict = _ENDS.get(rule.target, "unknown")
            if rule.target in self.chains:
                verdict = self.through(rule.target, depth + 1)
                if verdict == "return":
                    continue
            if None not in hits:
                return verdict
            if verdict != "closed":
                return "unknown"
        return "return"


def _hits(match: tuple[str, str, bool], packet: _Packet) -> bool | None:
    """Whether a stranger's first packet matches; None where some may and some may not."""
    option, value, negated = match
    found: bool | None = None
    if option == "-p":
        found = value in (packet.proto, "all", {"tcp": "6", "udp": "17"}[packet.proto])
    elif option in ("--dport", "--dports"):
        found = _has(value, packet.port)
    elif option in ("--sport", "--sports"):
        found = False  # strangers' ports are any
    elif option in ("--state", "--ctstate"):
        found = packet.state in value.split(",")
    elif (option == "-i" and value.startswith(_NOT_FROM_OUTSIDE)) or (
        option == "-s" and _TAILNET.match(value)
    ):
        found = False
    return found if found is None else found != negated
