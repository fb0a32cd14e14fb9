"""Read what `iptables-save` prints: whether a host's own rules close a port to everyone. Pure.

Every base chain of a hook decides, so an accept in our table opens no port that these rules close.
Only certainty counts: a rule that may let some in, by source, interface or a match that is not
known here, leaves the answer open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from roles.readers.chains import Packet, Rule, has_port, is_closed

_SAYS_NOTHING = (
    "-m",
    "--comment",
    "--reject-with",
    "--log-prefix",
    "--log-level",
    "--set-mark",
    "--set-xmark",
)
# Longer rules leave the answer open: a host may print anything.
_SAVED_MAX = 1 << 20
_WORD = re.compile(r'"((?:\\.|[^"\\]+)*+)"|(\S+)')


def closes(saved: str, proto: str, port: int) -> bool:
    """Whether a stranger's first packet to a port is certain to be dropped or rejected.

    That is decided by the chain INPUT of the table filter.
    """
    return _closes(saved, Packet(proto, port, "NEW"))


def closes_untracked(saved: str, proto: str, port: int) -> bool:
    """Whether a port is open to strangers only as long as the kernel tracks its connections."""
    return _closes(saved, Packet(proto, port, "UNTRACKED")) and not closes(saved, proto, port)


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
        if any(has_port(text, port) for text in ends if text):
            return True
    return False


def _rules_of(saved: str, wanted: str) -> Iterator[Rule]:
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


def _closes(saved: str, packet: Packet) -> bool:
    try:
        policies, chains = _filter_table(saved)
        return is_closed(chains, "INPUT", policies["INPUT"], packet)
    except (ValueError, KeyError):  # no such chain, or a way of printing that is not known here
        return False


@lru_cache(maxsize=2)
def _filter_table(saved: str) -> tuple[dict[str, str], dict[str, list[Rule]]]:
    """Return policy and rules of each chain of the table filter. Raises ValueError, KeyError."""
    if len(saved) > _SAVED_MAX:
        raise ValueError("too long")
    policies: dict[str, str] = {}
    chains: dict[str, list[Rule]] = {}
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


def _rule(words: list[str]) -> Rule:
    options = list(_options(words))
    target = next((value for option, value, _ in options if option in ("-j", "-g")), "")
    return Rule(tuple(item for item in options if item[0] not in ("-j", *_SAYS_NOTHING)), target)


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
