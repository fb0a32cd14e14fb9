"""A reload is seen to have taken: the unit has its sockets, or is restarted once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FILES = Path(__file__).parent.parent.parent / "files"
NGINX = "nginx.service"
# The sockets of the unit after each verb are given; the calls and the failure are printed.
PLAY = """
import json, sys
from agent import listening, service
from agent.answers import KeptAnswers
from agent.tools import Failed
given = json.loads(sys.argv[1])
now, calls = [given["first"]], []
service.listeners = lambda: [
    dict(proto="tcp", address=a, port=p, pid=7, program=u.split(".")[0], unit=u) for a, p, u in now[0]
]
listening._answers = lambda address, port: given.get("answers", False)
service.FELT_S = 0.2
class Units:
    def act(self, verb, unit, timeout_s):
        calls.append(verb)
        now[0] = given.get(verb, now[0])
    def act_again(self, verb, unit, timeout_s):
        calls.append("undo " + verb)
    def log(self, unit):
        return "its log"
class Host:
    root, units, answers = "", Units(), KeptAnswers()
spec = dict(id="service:x", unit="nginx.service", before=(), listens=given["listens"], timeout_s=1)
served, words = service.Service(spec, Host()), ""
with Host.answers.changing():
    try:
        served.act("reload")
    except Failed as failed:
        words = failed.what + ": " + failed.why
        served.undo("reload")
print(json.dumps([calls, words]))
"""
ALL, SIX = ["0.0.0.0", 443, NGINX], ["::", 443, NGINX]
ONE = ["203.0.113.10", 443, NGINX]


def played(**given: Any) -> tuple[list[str], str]:
    """Return the verbs, and the words of the failure or ""."""
    argv = [sys.executable, "-B", "-c", PLAY, json.dumps(given)]
    done = subprocess.run(argv, cwd=FILES, capture_output=True, text=True, check=True, timeout=30)
    calls, words = json.loads(done.stdout)
    return calls, words


@pytest.mark.parametrize(
    "given",
    [
        {"listens": ["0.0.0.0:443", "[::]:443"], "first": [], "reload": [ALL, SIX]},
        {"listens": ["0.0.0.0:443", "203.0.113.10:443"], "first": [ALL]},
        {"listens": ["203.0.113.10:443"], "first": [ONE]},
        {"listens": ["0.0.0.0:443", "[::]:443"], "first": [SIX], "answers": True},
        {"listens": [], "first": []},
    ],
)
def test_a_reload_that_took_is_all(given: dict[str, Any]) -> None:
    assert played(**given) == (["reload"], "")


@pytest.mark.parametrize(
    "given",
    [
        {"listens": ["0.0.0.0:443"], "first": [ONE], "restart": [ALL]},
        {"listens": ["203.0.113.10:443"], "first": [], "restart": [ONE]},
        {"listens": ["0.0.0.0:443", "[::]:443"], "first": [SIX], "restart": [SIX, ALL]},
        {"listens": ["[2001:db8::1]:443"], "first": [], "restart": [["2001:db8::1", 443, NGINX]]},
    ],
)
def test_where_only_a_restart_opens_a_socket_it_is_done_once(given: dict[str, Any]) -> None:
    assert played(**given) == (["reload", "restart"], "")


def test_a_restart_that_does_not_help_is_taken_back_by_a_restart() -> None:
    calls, words = played(listens=["0.0.0.0:443"], first=[ONE])
    assert calls == ["reload", "restart", "undo restart"]
    assert words.startswith("nginx.service does not listen on 0.0.0.0:443: a restart did not help")


@pytest.mark.parametrize("address", ["10.0.0.5", "0.0.0.0", "::"])
def test_no_restart_while_another_program_is_in_the_way(address: str) -> None:
    """It would stop all sites, and none would come up again."""
    calls, words = played(listens=["0.0.0.0:443", "[::]:443"], first=[ONE, [address, 443, "caddy.service"]])
    assert calls == ["reload", "undo reload"]
    assert f"in the way: caddy (pid 7) on {address}:443; stop that program" in words


WITHOUT_IPV6 = """
import json, sys, socket
from agent import facts
real = facts.read_text
facts.read_text = lambda path: "" if path.endswith("6") else real(path)
with socket.create_server(("127.0.0.1", 0)) as server:
    found = [[each["address"], each["port"]] for each in facts.listeners()]
    print(json.dumps([list(server.getsockname()) in found, [a for a, p in found if ":" in a]]))
"""


def test_a_kernel_without_ipv6_has_listeners() -> None:
    """/proc/net/tcp6 and udp6 are not there then (K10)."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_IPV6], cwd=FILES, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [True, []]
