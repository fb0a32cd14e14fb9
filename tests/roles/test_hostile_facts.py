"""Facts of a host that reports anything: its own failure, in little time and memory.

`mutated` changes any value of a whole host's facts, and every role reads what passes the check.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import roles
from engine.crash import AgentCrashed, made_of_facts
from engine.facts import Facts
from inventory.errors import DerpfleetError
from tests.roles.cases import FOLDER, _joined, load, names, shipment

NONSENSE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "x" * 100_000, "[[" * 1000, "{" * 1000, "\n", "-1", "9" * 5000]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
)
HOSTS = {name: _joined(json.loads((FOLDER / name / "facts.json").read_text())) for name in names()}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each (collection, key) of a tree of JSON."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in list(pairs):
        yield value, key
        yield from places(member)


@st.composite
def mutated(draw: Callable[..., Any]) -> tuple[str, Any]:
    """Return the name of a case, and its facts with up to three values replaced or removed."""
    name = draw(st.sampled_from(sorted(HOSTS)))
    raw = deepcopy(HOSTS[name])
    for _ in range(draw(st.integers(1, 3))):
        collection, key = draw(st.sampled_from(list(places(raw))))
        if isinstance(collection, dict) and draw(st.booleans()):
            del collection[key]
        else:
            collection[key] = draw(NONSENSE)
    return name, raw


@settings(max_examples=150, deadline=None)
@given(mutated())
def test_mutated_facts_are_refused_or_read_and_never_raise_anything_else(case: tuple[str, Any]) -> None:
    name, raw = case
    host, site, _ = load(name)
    try:
        facts = Facts.parse(raw)
    except ValueError:
        return
    started = time.process_time()
    try:
        with made_of_facts(host.name):
            assert all(isinstance(words, str) for words in roles.refusals(host, site, facts))
            list(roles.warnings(host, site, facts))
            roles.compile_host(host, site, facts, shipment(host))
    except DerpfleetError as error:
        assert error.host in ("", host.name)
    assert time.process_time() - started < 1


def test_an_error_of_any_reader_is_that_hosts_failure() -> None:
    with pytest.raises(AgentCrashed, match="facts cannot be used") as error, made_of_facts("hk1"):
        raise LookupError("x" * 1000)
    assert (error.value.host, len(error.value.why)) == ("hk1", 500)
    assert error.value.where.startswith("test_hostile_facts.py:")


SECTION = "# configuration file /etc/nginx/nginx.conf:\n"
CHAINS = "".join(f":c{number} - [0:0]\n" for number in range(10))
JUMPS = "".join(f"-A c{number} -j c{number + 1}\n" * 10 for number in range(9))
FILTER = "*filter\n:INPUT ACCEPT [0:0]\n"
CHAIN = "table inet x {\n\tchain i {\n\t\ttype filter hook input priority filter; policy drop;\n\t\t"
HOSTILE = {
    "lua": ("nginx", SECTION + "content_by_lua_block {" + "[[" * 20_000 + "}"),
    "strings in lua": ("nginx", SECTION + 'content_by_lua_block {"' + '\\"' * 2_000_000 + "}"),
    "strings": ("nginx", SECTION + 'x "' + '\\"' * 2_000_000 + ";"),
    "blocks": ("nginx", SECTION + "a{" * 5000 + "}" * 5000),
    "directives": ("nginx", SECTION + "a;" * 3_000_000),
    "includes": (
        "nginx",
        SECTION + "include /0;" + "".join(
            f"\n# configuration file /{number}:\ninclude /{number + 1};include /{number + 1};"
            for number in range(19)
        ) + "\n# configuration file /19:\nx;",
    ),
    "a comment": ("iptables", f'{FILTER}-A INPUT -m comment --comment "{"a " * 500_000}" -j DROP\nCOMMIT\n'),
    "chains": ("iptables", f"{FILTER}{CHAINS}{'-A INPUT -j c0' * 10}{JUMPS}COMMIT\n"),
    "rules": ("iptables", FILTER + "-A INPUT -s 192.0.2.1/32 -j RETURN\n" * 200_000),
    "tables of nft": ("nft_ruleset", "table inet x {\n" * 60_000),
    "chains of nft": ("nft_ruleset", "table inet x {\n" + "\tchain a {\n" * 80_000 + "}\n"),
    "words of nft": ("nft_ruleset", CHAIN + "a " * 500_000 + "accept\n\t}\n}\n"),
    "sets of nft": ("nft_ruleset", CHAIN + "tcp dport { " * 80_000 + "\n\t}\n}\n"),
    "a map of nft": ("nft_ruleset", f"{CHAIN}tcp dport vmap {{ {'a' * 1_000_000} }}\n\t}}\n}}\n"),
    "comments of nft": ("nft_ruleset", CHAIN + 'comment "' * 100_000 + "\n\t}\n}\n"),
    "our tables in nft": ("nft_ruleset", "table inet derpfleet {\n" * 200_000),
    "states in nft": ("nft_ruleset", "ct state x " * 400_000),
    "redirections in nft": ("nft_ruleset", "redirect " * 200_000),
    "ports in nft": ("nft_ruleset", "443 " * 400_000),
    "blank lines": ("nginx_conffiles", "\n" * 2_000_000),
}
MEASURE = """
import json, resource, sys, time
from dataclasses import replace
from engine.facts import Facts, Output
from engine.crash import made_of_facts
from inventory.errors import DerpfleetError
from tests.roles.cases import load
import roles
host, site, facts = load("shared-nginx")
roles.refusals(host, site, facts)
command, text = json.load(sys.stdin)
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
commands = {**facts.commands, command: Output(status=0, stdout=text, stderr="")}
try:
    with made_of_facts("hk1"):
        roles.refusals(host, site, replace(facts, commands=commands))
        roles.warnings(host, site, replace(facts, commands=commands))
except DerpfleetError:
    pass
took_s = time.process_time() - started
print(json.dumps([took_s, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_output_costs_a_second_and_100_mb_at_most(name: str) -> None:
    asked = json.dumps(HOSTILE[name])
    argv = [sys.executable, "-c", MEASURE]
    done = subprocess.run(argv, input=asked, capture_output=True, text=True, check=True)
    took_s, grown_mb = json.loads(done.stdout)
    assert (took_s < 1, grown_mb < 100) == (True, True), done.stdout


MANY = 600_000
FACTS = {
    "a list": ("addresses", json.dumps([1] * MANY)),
    "a mapping": ("files", json.dumps(dict.fromkeys(map(str, range(300_000)), 1))),
    "what is not asked for": ("x", json.dumps([[]] * MANY, separators=(",", ":"))),
    "lists": ("x", json.dumps([[]] * 290_000)),
    "mappings": ("x", json.dumps([{"": 0}] * 290_000)),
    "a tower": ("x", "[" * 290_000),
}
MEASURE_FACTS = """
import sys
from engine.facts import Facts
from tests.support.facts import DEBIAN_12
from dataclasses import asdict
from engine.messages import unpacked
Facts.parse(asdict(DEBIAN_12))
import base64, json, resource, time, zlib
packed = base64.b64encode(zlib.compress(sys.stdin.buffer.read())).decode()
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    Facts.parse(unpacked(packed))
except (ValueError, RecursionError) as error:
    took_s = time.process_time() - started
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps([took_s, grown_mb, len(str(error))]))
"""


@pytest.mark.parametrize("name", FACTS)
def test_hostile_facts_cost_a_second_and_100_mb_at_most(name: str) -> None:
    argv = [sys.executable, "-c", MEASURE_FACTS]
    asked = '{"%s":%s}' % FACTS[name]  # noqa: UP031 - braces
    done = subprocess.run(argv, input=asked, capture_output=True, text=True, check=True)
    took_s, grown_mb, words = json.loads(done.stdout)
    assert (took_s < 1, grown_mb < 100, words < 500) == (True, True, True), done.stdout
