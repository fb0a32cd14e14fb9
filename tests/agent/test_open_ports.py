"""Ports in a firewall of the host's own. It is a fake here; tests/e2e has the real ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.resource import OpenPorts
from engine.run import Outcome
from tests.agent.driver import Agent, OnStage

FILES = Path(__file__).parent.parent.parent / "files"
PORTS = ("443/tcp", "3478/udp")
WAITS_1_S = "from agent import firewalld\nfirewalld.LIMIT_S = 1\n"
# It keeps its ports in a file for each scope, and ends as the real one does.
FIREWALL_CMD = """#!/usr/bin/python3
import os, sys
words, home = sys.argv[1:], "/var/fake/firewalld"
offline = sys.argv[0].endswith("offline-cmd")
with open("/var/fake/log", "a") as log:
    log.write(" ".join([os.path.basename(sys.argv[0])] + words) + chr(10))
if not offline and not os.path.exists(home + "/running"):
    sys.exit(252)
if "--get-default-zone" in words:
    print(open(home + "/zone").read().strip())
elif words[0].startswith("--get-zone-of-interface"):
    sys.exit(2)
else:
    path = home + ("/permanent" if offline or "--permanent" in words else "/runtime")
    ports = open(path).read().split() if os.path.exists(path) else []
    for word in words:
        if word.startswith("--add-port="):
            ports.append(word[11:])
        if word.startswith("--remove-port="):
            ports.remove(word[14:])
    if "--list-ports" in words:
        print(*ports)
    open(path, "w").write(" ".join(ports))
"""


def with_firewalld(on_stage: OnStage, **files: str) -> Agent:
    """Return an agent on a stage with firewalld: `running`, its `zone`, its ports by scope."""
    programs = {f"/var/fake/bin/firewall-{name}": FIREWALL_CMD for name in ("cmd", "offline-cmd")}
    state = {f"/var/fake/firewalld/{name}": text for name, text in {"zone": "public", **files}.items()}
    agent = on_stage(files=programs | state)
    for path in programs:
        (agent.stage.root / path[1:]).chmod(0o755)
    return agent


def state(agent: Agent, name: str) -> str:
    return (agent.stage.root / "var/fake/firewalld" / name).read_text()


def note(agent: Agent) -> Any:
    return json.loads((agent.stage.root / "var/lib/derpfleet/opened-firewalld").read_text())


def failure(outcome: Outcome) -> tuple[str, str]:
    (found,) = outcome.failures
    return found.what, found.why


def test_ports_are_opened_in_both_scopes_and_only_ours_are_closed(on_stage: OnStage) -> None:
    agent = with_firewalld(on_stage, running="", runtime="443/tcp 8443/tcp", permanent="9000/tcp")
    wanted = OpenPorts(through="firewalld", ports=PORTS)
    assert agent.run([wanted]).changed == ["open_ports:firewalld"]
    assert agent.run([wanted]).counts["ok"] == 1
    assert state(agent, "runtime") == "443/tcp 8443/tcp 3478/udp"
    assert state(agent, "permanent") == "9000/tcp 443/tcp 3478/udp"
    assert not [call for call in agent.log() if "reload" in call]

    gone = OpenPorts(through="firewalld")
    assert agent.run([gone]).changed == ["open_ports:firewalld"]
    assert agent.run([gone]).counts["ok"] == 1
    assert (state(agent, "runtime"), state(agent, "permanent")) == ("443/tcp 8443/tcp", "9000/tcp")
    assert not (agent.stage.root / "var/lib/derpfleet/opened-firewalld").exists()


def test_what_is_noted_and_not_yet_open_is_opened_and_closed_again(on_stage: OnStage) -> None:
    """A run that dies between the note and the opening."""
    agent = with_firewalld(on_stage, running="", runtime="", permanent="")
    wanted = OpenPorts(through="firewalld", ports=PORTS)
    agent.run([wanted])
    (agent.stage.root / "var/fake/firewalld/runtime").write_text("")
    assert agent.run([wanted]).changed == ["open_ports:firewalld"]
    assert note(agent)["at run time in zone public"] == ["443/tcp", "3478/udp"]
    agent.run([OpenPorts(through="firewalld")])
    assert state(agent, "runtime") == state(agent, "permanent") == ""


def test_ports_follow_the_default_zone(on_stage: OnStage) -> None:
    agent = with_firewalld(on_stage, running="", runtime="", permanent="")
    wanted = OpenPorts(through="firewalld", ports=PORTS)
    agent.run([wanted])
    (agent.stage.root / "var/fake/firewalld/zone").write_text("dmz")
    agent.run([wanted])
    assert [place for place in note(agent) if place.endswith("public")] == []


def test_one_that_was_stopped_is_told_by_its_offline_program(on_stage: OnStage) -> None:
    agent = with_firewalld(on_stage, running="", runtime="", permanent="9000/tcp")
    agent.run([OpenPorts(through="firewalld", ports=PORTS)])
    (agent.stage.root / "var/fake/firewalld/running").unlink()
    agent.forget()
    assert agent.run([OpenPorts(through="firewalld")]).changed == ["open_ports:firewalld"]
    assert state(agent, "permanent") == "9000/tcp"
    what, why = failure(agent.run([OpenPorts(through="firewalld", ports=PORTS)]))
    assert (what, why) == ("firewalld is not running", "start it, or set firewall.mode to auto")


@pytest.mark.parametrize("through", ["ufw", "firewalld"])
def test_one_that_is_not_installed_lets_nothing_in(on_stage: OnStage, through: str) -> None:
    agent = on_stage()
    if (agent.stage.root / "usr/sbin" / through).exists():
        pytest.skip(f"this machine has {through}")
    assert agent.run([OpenPorts(through=through)]).counts["ok"] == 1


def test_one_that_hangs_is_named_in_bounded_time(on_stage: OnStage) -> None:
    agent = on_stage(files={"/var/fake/bin/firewall-cmd": "#!/bin/sh\nsleep 60\n"})
    (agent.stage.root / "var/fake/bin/firewall-cmd").chmod(0o755)
    agent.extra = WAITS_1_S
    what, why = failure(agent.run([OpenPorts(through="firewalld", ports=PORTS)]))
    assert what == "firewall-cmd --get-default-zone gave no answer in 1 s"
    assert "systemctl status firewalld polkit dbus" in why


def test_an_answer_that_is_no_list_of_ports_is_an_error(on_stage: OnStage) -> None:
    agent = with_firewalld(on_stage, running="", runtime="Warning: 443", permanent="")
    assert failure(agent.run([OpenPorts(through="firewalld", ports=PORTS)])) == (
        "firewalld's answer makes no sense", "'Warning:' is no port",
    )  # fmt: skip


USER_RULES = """*filter
### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### allow tcp 443 0.0.0.0/0 any 0.0.0.0/0 derpfleet - in
### tuple ### allow udp 60000:60010 0.0.0.0/0 any 0.0.0.0/0 derpfleet - in comment=61
### tuple ### deny tcp 80 0.0.0.0/0 any 0.0.0.0/0 derpfleet - in
### tuple ### allow tcp 81 0.0.0.0/0 any 203.0.113.0/24 other - in
### tuple ### allow tcp 82 0.0.0.0/0 any 0.0.0.0/0 derpfleet - in_eth0
### tuple ### allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 derpfleet - in
"""
LOADED = r"""*filter
:INPUT DROP [0:0]
:ufw-user-input - [0:0]
-A INPUT -p tcp -m tcp --dport 79 -m comment --comment "as dapp_derpfleet" -j ACCEPT
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
-A ufw-user-input -p tcp -m tcp --dport 443 -m comment --comment "\'dapp_derpfleet\'" -j ACCEPT
-A ufw-user-input -p udp -m multiport --dports 60000:60010 -m comment --comment "\'dapp_derpfleet\'" -j ACCEPT
-A ufw-user-input -p tcp -m tcp --dport 80 -m comment --comment "\'dapp_derpfleet\'" -j DROP
"""


@pytest.mark.parametrize(
    ("form", "text", "ports"),
    [
        ("SAVED", USER_RULES, ["80/tcp", "443/tcp", "60000-60010/udp"]),
        ("SAVED", "", []),
        ("LOADED", LOADED, ["443/tcp", "60000-60010/udp"]),
        ("LOADED", "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", []),
    ],
)
def test_ufws_rules_of_our_profile_are_read(form: str, text: str, ports: list[str]) -> None:
    found = f"ufw.ports_in(ufw.{form}, sys.stdin.read())"
    read = f"import json, sys; from agent import ufw; print(json.dumps({found}))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", read], cwd=FILES, input=text, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == ports
