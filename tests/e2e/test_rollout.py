"""A rollout of four relays of two kinds, with three real nodes that ping each other meanwhile.

Each test goes on from the state in which the one before it ended: run the whole file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, cycle, pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

import lab
from lab.client import LabClient
from lab.process import wait_for
from lab.topology import EVERY_HOST
from tests.e2e.checkouts import of_another_operator
from tests.e2e.desk import Desk, Ran
from tests.e2e.mishaps import await_agent, boot_again
from tests.e2e.underway import Event, Underway
from tests.e2e.watched import watched

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

BOOKWORM, TRIXIE = ("hk1", "fr1"), ("sg1", "la1")
HOSTS = (*BOOKWORM, *TRIXIE)
BUSY = "fr1"  # the home of all nodes
ONLY = [*HOSTS, "hs1", "site-a", "site-b", "site-c"]
LONGEST_GAP_S = 15.0  # far more than a restart takes, and less than to find another relay
IN_TWO_WAVES = ("--waves", "rest", "--soak", "8")
RELAY = "derpfleet-relay.service"
ADMITS_EVERYBODY = {
    "verify_client_url": "http://127.0.0.1:9/verify",
    "verify_insecure": True,
    "verify_fail_open": True,
}
# systemd's own ids of the messages that a unit is being stopped, and has started
STOPPING, STARTED = "de5b426a63be47a7b6ac3eaac82e2f6f", "39f53479d3a045ac8e11786248231fbf"


def in_force(desk: Desk) -> dict[str, int]:
    """Return the number of the generation that is in force on each host."""
    ran = desk.invoke("history")
    assert ran.code == 0, ran.why()
    assert ran.of("unconfirmed") == []
    return {event["host"]: event["number"] for event in ran.of("generation") if event["in_force"]}


def unit(desk: Desk, host: str) -> str:
    return desk.stage.run_in(host, ["cat", f"/etc/systemd/system/{RELAY}"]).stdout


def restarts(desk: Desk, since: float) -> dict[str, list[tuple[float, float]]]:
    """Return when the relay of each host was down, by its systemd: from its stop until it served.

    Times are in seconds since 1970: the hosts of a lab have one clock.
    """
    look = ["journalctl", "--quiet", "--output=json", f"--unit={RELAY}", f"--since=@{int(since)}"]
    found = {}
    for host in HOSTS:
        lines = [json.loads(line) for line in desk.stage.run_in(host, look).stdout.splitlines()]
        stops, starts = (
            [at for line in lines if line.get("MESSAGE_ID") == id and (at := _at(line)) >= since]
            for id in (STOPPING, STARTED)
        )
        found[host] = list(zip(stops, starts, strict=True))
    return found


def _at(line: dict[str, Any]) -> float:
    return int(line["__REALTIME_TIMESTAMP"]) / 1e6


def were_one_by_one(down: dict[str, list[tuple[float, float]]]) -> bool:
    """Whether no two relays were down at the same time."""
    times = sorted(chain.from_iterable(down.values()))
    return all(started < stopped for (_, started), (stopped, _) in pairwise(times))


def counts(down: dict[str, list[tuple[float, float]]]) -> dict[str, int]:
    """Return how often each relay was restarted, if it was."""
    return {host: len(times) for host, times in down.items() if times}


def begun(ran: Ran, host: str) -> list[str]:
    """Return the states of a host from its cut-over on.

    The one that is prepared last may be cut over in the same step, and then does not wait.
    """
    return [event["state"] for event in ran.of("host_state", host) if event["state"] != "waiting"]


def is_state(state: str) -> Callable[[Event], bool]:
    """Return a function that tells whether an event brings a host into that state."""
    return lambda event: event["event"] == "host_state" and event["state"] == state


def ended(ran: Ran) -> dict[str, Any]:
    [event] = ran.of("rollout_ended")
    return event


def edit_all(desk: Desk, relay: dict[str, Any] | None) -> None:
    for host in HOSTS:
        desk.edit(host, relay=relay)


@pytest.fixture(scope="module")
def desk(stage: lab.Lab) -> Desk:
    """Four small relays, which a first rollout has brought to bare hosts and into the map."""
    site = yaml.safe_load(stage.site_file.read_text())
    site["defaults"] |= {"front": "direct", "firewall": {"mode": "off"}}
    site["defaults"]["certificate"] = {"source": "self-signed"}
    site["rollout"] = {"soak_s": 0}
    stage.site_file.write_text(yaml.safe_dump(site, sort_keys=False))
    desk = Desk(stage)
    ran = desk.invoke("rollout", "--at-once", "4", "--waves", "rest", timeout_s=600)
    assert ran.code == 0, ran.why()
    assert sorted(ended(ran)["confirmed"]) == sorted(HOSTS)
    assert in_force(desk) == dict.fromkeys(HOSTS, 1)
    return desk


@pytest.fixture(scope="module")
def joined(desk: Desk) -> list[LabClient]:
    """Three nodes, which prefer one relay.

    They are told so before their first look for the nearest one: a later look is at three of them.
    """
    found, home = list(desk.stage.clients.values()), EVERY_HOST[BUSY].region
    assert home
    for node in found:
        node.start()
        node.tailscale("debug", "force-prefer-derp", str(home[0]))
        node.join()
    return found


@pytest.fixture
def nodes(joined: list[LabClient]) -> list[LabClient]:
    """The nodes, all at home there, and known to each other there."""
    home = EVERY_HOST[BUSY].region
    assert home

    def homes() -> list[str]:
        """Return the home of each node, as itself and as each other one has it."""
        seen = [node.status() for node in joined]
        return [one["Relay"] for status in seen for one in (status["Self"], *status["Peer"].values())]

    everywhere = [home[1]] * len(joined) ** 2
    wait_for(
        lambda: homes() == everywhere,
        timeout_s=90,
        what=f"not all nodes are at {BUSY}",
        why=lambda: ", ".join(homes()),
    )
    _reach_each_other(joined)
    return joined


def _reach_each_other(nodes: Sequence[LabClient]) -> None:
    for one, other in pairwise([*nodes, nodes[0]]):
        one.ping(other)


@contextmanager
def served(nodes: Sequence[LabClient], record: Any) -> Iterator[None]:
    """Watch the nodes: each has all relays in its map all the time, and is never long without one.

    The longest gap of each pair is printed, and a property of the test in its report.
    """
    with watched(nodes) as found:
        yield
        _reach_each_other(nodes)
        gaps = found.gaps_s()
    print("longest gap of each pair, s:", gaps)
    record("longest gap of each pair, s", gaps)
    ours = {spec.region[0] for host in HOSTS if (spec := EVERY_HOST[host]).region}
    assert found.looks and all(look >= ours for look in found.looks)
    assert max(gaps.values()) <= LONGEST_GAP_S


def test_a_good_rollout_confirms_a_canary_of_each_kind_before_the_rest(
    desk: Desk, nodes: list[LabClient], record_property: Any
) -> None:
    edit_all(desk, {"connections_per_address": 512})

    dry = desk.invoke("rollout", "--dry-run")
    assert dry.code == 10, dry.why()
    [canaries, *_] = waves = dry.of("rollout")[0]["waves"]
    assert sorted(canaries) == ["fr1", "sg1"]  # one of each kind, that with clients rather than one without
    assert in_force(desk) == dict.fromkeys(HOSTS, 1)

    since = time.time()
    with served(nodes, record_property):
        ran = desk.invoke("rollout", "--soak", "6", timeout_s=600)

    assert ran.code == 0, ran.why()
    assert ran.of("rollout")[0]["waves"] == waves
    for host in HOSTS:
        assert begun(ran, host) == ["cutting", "confirmed"]
    order = [(event["host"], event["state"]) for event in ran.of("host_state")]
    last_canary = max(order.index((host, "confirmed")) for host in canaries)
    assert last_canary < min(order.index((host, "cutting")) for host in set(HOSTS) - set(canaries))
    down = restarts(desk, since)
    assert counts(down) == dict.fromkeys(HOSTS, 1)
    assert were_one_by_one(down)
    assert in_force(desk) == dict.fromkeys(HOSTS, 2)


def test_hosts_with_nothing_to_do_are_left_alone(desk: Desk) -> None:
    since = time.time()
    ran = desk.invoke("rollout")
    assert ran.code == 0, ran.why()
    assert (sorted(ended(ran)["left_alone"]), ran.of("armed")) == (sorted(HOSTS), [])
    assert counts(restarts(desk, since)) == {}


def test_a_canary_that_fails_is_taken_back_with_its_wave_and_no_other_host_is_touched(
    desk: Desk, nodes: list[LabClient], record_property: Any
) -> None:
    """The new state is bad for hosts of one kind: at most one of them ever has it."""
    before = {host: unit(desk, host) for host in HOSTS}
    for hosts, more in ((BOOKWORM, ADMITS_EVERYBODY), (TRIXIE, {})):
        for host in hosts:
            desk.edit(host, relay={"connections_per_address": 300, **more})

    since = time.time()
    with served(nodes, record_property):
        ran = desk.invoke("rollout", timeout_s=600)

    assert ran.code == 7, ran.why()
    assert {event["host"] for event in ran.of("armed")} == {"sg1", "fr1"}
    assert begun(ran, "sg1") == ["cutting", "confirmed", "going back", "undone"]
    assert begun(ran, "fr1") == ["cutting", "undone"]
    assert sorted(ended(ran)["waiting"]) == ["hk1", "la1"]
    down = restarts(desk, since)
    assert counts(down) == {"fr1": 2, "sg1": 2}  # to the new state, and back
    assert were_one_by_one(down)
    assert ran.proof("sg1")["ok"] and ran.proof("fr1")["ok"]
    assert {host: unit(desk, host) for host in HOSTS} == before

    since = time.time()
    again = desk.invoke("rollout", timeout_s=600)
    assert again.code == 1, again.why()
    assert "--again" in again.failure()["next"]
    assert counts(restarts(desk, since)) == {}


# In the order in which they come.
MOMENTS: dict[str, Callable[[Event], bool]] = {
    "prepared": is_state("waiting"),
    "cutting over": is_state("cutting"),
    "armed": lambda event: event["event"] == "armed",
    "kept": lambda event: event["event"] == "kept",
    "confirmed": is_state("confirmed"),
    "registering": lambda event: event["event"] == "wave" and event["state"] == "registering",
    "a wave is done": lambda event: event["event"] == "wave" and event["state"] == "done",
}


def test_killed_again_and_again_it_is_resumed_until_its_end(desk: Desk, tmp_path: Path) -> None:
    """By two machines in turn. The second has none of the records of the first."""
    edit_all(desk, {"connections_per_address": 256})
    before = in_force(desk)
    there = replace(desk, checkout=of_another_operator(tmp_path, desk.stage.site_file))
    words: tuple[str, ...] = ("--canary", "sg1")
    for (name, is_moment), machine in zip(MOMENTS.items(), cycle([desk, there])):
        print("killed:", name)
        with Underway(desk.stage, "rollout", *words, checkout=machine.checkout) as rollout:
            rollout.until(is_moment, timeout_s=300)
        # Leaving the block has killed it.
        words = ("--resume", "--wait", "30")
    ran = there.invoke("rollout", *words, timeout_s=600)
    assert ran.code == 0, ran.why()
    assert sorted(ended(ran)["confirmed"]) == sorted(HOSTS)
    assert in_force(desk) == {host: number + 1 for host, number in before.items()}
    assert all("256" in unit(desk, host) for host in HOSTS)
    for host in (*HOSTS, "hs1"):
        await_agent(desk.stage, host)
        locks = "for lock in /run/derpfleet/*lock; do flock --nonblock $lock true || exit 1; done"
        desk.stage.run_in(host, ["sh", "-c", locks])
    none_open = desk.invoke("rollout", "--resume")
    assert none_open.code == 1 and "no rollout of this site is open" in none_open.failure()["what"]


def test_a_second_operator_is_refused_a_rollout_and_may_deploy_a_host_that_waits(desk: Desk) -> None:
    edit_all(desk, None)
    before = in_force(desk)
    with Underway(desk.stage, "rollout", "--canary", "sg1", *IN_TWO_WAVES) as first:
        first.until(is_state("cutting"))
        second = desk.invoke("rollout")
        assert second.code == 5, second.why()
        assert "under way" in second.failure()["why"]
        deployed = desk.invoke("deploy", "--host", "la1")
        assert deployed.code == 0, deployed.why()
        ran = first.end()
    assert ran.code == 0, ran.why()
    assert begun(ran, "la1") == ["cutting", "chosen", "idle"]  # prepared again, there is nothing to do
    assert ended(ran)["left_alone"] == ["la1"]
    assert in_force(desk) == {host: number + 1 for host, number in before.items()}


@contextmanager
def headscale_stopped(desk: Desk) -> Iterator[None]:
    """Stop headscale for the block. At its end headscale answers again."""
    desk.stage.run_in("hs1", ["systemctl", "stop", "headscale"])
    try:
        yield
    finally:
        desk.stage.run_in("hs1", ["systemctl", "start", "headscale"])
        desk.stage.headscale.await_answer()


def test_while_headscale_is_stopped_no_relay_is_restarted(desk: Desk) -> None:
    """Before a rollout, and while its canary is watched. It goes on once headscale answers."""
    edit_all(desk, {"connections_per_address": 384})
    since = time.time()
    with headscale_stopped(desk):
        ran = desk.invoke("rollout", "--canary", "sg1", *IN_TWO_WAVES, timeout_s=600)
        assert ran.code == 6, ran.why()
        assert "no other relay is proved" in ended(ran)["why"]
        assert ": admission" in ended(ran)["why"]  # no relay could ask headscale
        assert counts(restarts(desk, since)) == {}
    with Underway(desk.stage, "rollout", "--resume") as rollout:
        rollout.until(is_state("confirmed"))
        with headscale_stopped(desk):
            ran = rollout.end()
            assert ran.code == 6, ran.why()
            assert ended(ran)["confirmed"] == ["sg1"]
            assert counts(restarts(desk, since)) == {"sg1": 1}
    ran = desk.invoke("rollout", "--resume", timeout_s=600)
    assert ran.code == 0, ran.why()
    assert sorted(ended(ran)["confirmed"]) == sorted(HOSTS)
    assert counts(restarts(desk, since)) == dict.fromkeys(HOSTS, 1)


def test_a_host_that_loses_its_power_while_it_is_armed_is_brought_back(desk: Desk) -> None:
    """It boots with the new state, which nobody has confirmed."""
    before, number = unit(desk, "la1"), in_force(desk)
    edit_all(desk, None)
    with Underway(desk.stage, "rollout", "--canary", "la1") as rollout:
        rollout.until(lambda event: event["event"] == "armed")
        desk.stage.hosts["la1"].stop()
        boot_again(desk.stage, "la1")
        ran = rollout.end()
    assert ran.code == 7, ran.why()
    assert begun(ran, "la1") == ["cutting", "lost", "undone"]
    assert sorted(ended(ran)["waiting"]) == ["fr1", "hk1", "sg1"]
    assert (unit(desk, "la1"), in_force(desk)) == (before, number)


def test_a_relay_that_becomes_another_program_leaves_no_node_without_one(
    desk: Desk, nodes: list[LabClient], record_property: Any
) -> None:
    edit_all(desk, {"connections_per_address": 384})
    desk.edit(BUSY, relay={"program": "derper", "under": "systemd"})
    with served(nodes, record_property):
        ran = desk.invoke("rollout", timeout_s=600)
    assert ran.code == 0, ran.why()
    assert ended(ran)["confirmed"] == [BUSY]
    [left] = ran.of("drained", BUSY)
    assert left["homes"] == len(nodes)
