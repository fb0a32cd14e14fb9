"""A rollout of four relays of two kinds, with three real nodes that ping each other meanwhile.

Each test goes on from the state in which the one before it ended: run the whole file.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate, takewhile
from typing import Any

import pytest
import yaml

import lab
from lab.client import LabClient
from lab.process import wait_for
from lab.topology import EVERY_HOST
from tests.e2e.desk import CHECKOUT, Desk, Ran
from tests.e2e.mishaps import await_agent, kill_agent
from tests.e2e.underway import Event, Underway
from tests.e2e.watched import Watched, watched
from tests.test_ci import gitlab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

BOOKWORM, TRIXIE = ("hk1", "fr1"), ("sg1", "la1")
HOSTS = (*BOOKWORM, *TRIXIE)
BUSY = "fr1"  # the home of all nodes
ONLY = [*HOSTS, "hs1", "site-a", "site-b", "site-c"]
RESUME = ("--resume", "--wait", "30")
IN_TWO_WAVES = ("--waves", "rest", "--soak", "8")
UNIT = "/etc/systemd/system/derpfleet-relay.service"
ADMITS_EVERYBODY = {
    "verify_client_url": "http://127.0.0.1:9/verify",
    "verify_insecure": True,
    "verify_fail_open": True,
}


def in_force(desk: Desk) -> dict[str, int]:
    """Return the number of the generation that is in force on each host."""
    ran = desk.invoke("history")
    assert ran.code == 0, ran.why()
    assert ran.of("unconfirmed") == []
    return {event["host"]: event["number"] for event in ran.of("generation") if event["in_force"]}


def unit(desk: Desk, host: str) -> str:
    return desk.stage.run_in(host, ["cat", UNIT]).stdout


def started(desk: Desk) -> dict[str, str]:
    """Return when the relay of each host was started."""
    show = ["systemctl", "show", "--property=ActiveEnterTimestampMonotonic", "derpfleet-relay.service"]
    return {host: desk.stage.run_in(host, show).stdout for host in HOSTS}


def states(ran: Ran, host: str) -> list[str]:
    return [event["state"] for event in ran.of("host_state", host)]


def ended(ran: Ran) -> dict[str, Any]:
    [event] = ran.of("rollout_ended")
    return event


def edit_all(desk: Desk, relay: dict[str, Any] | None) -> None:
    for host in HOSTS:
        desk.edit(host, relay=relay)


def most_down(ran: Ran) -> int:
    """Return how many relays may have been down at the same time, by their states."""
    steps = [
        (event["state"] in ("cutting", "going back")) - (event["was"] in ("cutting", "going back"))
        for event in ran.of("host_state")
    ]
    return max(accumulate(steps))


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
def nodes(desk: Desk) -> list[LabClient]:
    """Three nodes, all at home at one relay."""
    found, home = list(desk.stage.clients.values()), EVERY_HOST[BUSY].region
    assert home

    def all_are_there() -> bool:
        """Whether each node is at home there, and knows it of the others."""
        for node in found:
            node.tailscale("debug", "restun")
        homes = [(node.home, *(peer["Relay"] for peer in node.status()["Peer"].values())) for node in found]
        return homes == [(home[1],) * len(found)] * len(found)

    for node in found:
        node.join()
        node.tailscale("debug", "force-prefer-derp", str(home[0]))
    wait_for(all_are_there, timeout_s=90, what=f"not all nodes are at {BUSY}")
    for node in found:
        node.tailscale("debug", "break-derp-conns")  # also those to the relays that they tried first
    return found


@contextmanager
def served(nodes: list[LabClient], record: Any) -> Iterator[Watched]:
    """Watch the nodes: each has all relays in its map all the time, and reaches the others again.

    The longest gap of each pair is a property of the test in its report.
    """
    for one, other in zip(nodes, nodes[1:] + nodes[:1], strict=True):
        one.ping(other)
    with watched(nodes) as found:
        yield found
        for one, other in zip(nodes, nodes[1:] + nodes[:1], strict=True):
            one.ping(other)
    assert found.looks and min(found.looks) >= len(HOSTS)
    print("longest gaps", found.gaps_s())
    record("longest gap of each pair, s", found.gaps_s())


def test_a_good_rollout_confirms_a_canary_of_each_kind_before_the_rest(
    desk: Desk, nodes: list[LabClient], record_property: Any
) -> None:
    edit_all(desk, {"connections_per_address": 512})

    dry = desk.invoke("rollout", "--dry-run")
    assert dry.code == 10, dry.why()
    [canaries, *_] = waves = dry.of("rollout")[0]["waves"]
    assert sorted(canaries) == ["fr1", "sg1"]  # one of each kind, that with clients rather than one without
    assert in_force(desk) == dict.fromkeys(HOSTS, 1)

    with served(nodes, record_property):
        ran = desk.invoke("rollout", "--soak", "6", timeout_s=600)

    assert ran.code == 0, ran.why()
    assert ran.of("rollout")[0]["waves"] == waves
    for host in HOSTS:
        assert states(ran, host) == ["waiting", "cutting", "confirmed"]
    order = [(event["host"], event["state"]) for event in ran.of("host_state")]
    last_canary = max(order.index((host, "confirmed")) for host in canaries)
    assert last_canary < min(order.index((host, "cutting")) for host in set(HOSTS) - set(canaries))
    assert most_down(ran) == 1
    assert in_force(desk) == dict.fromkeys(HOSTS, 2)


def test_hosts_with_nothing_to_do_are_left_alone(desk: Desk) -> None:
    before = started(desk)
    ran = desk.invoke("rollout")
    assert ran.code == 0, ran.why()
    assert (sorted(ended(ran)["left_alone"]), ran.of("armed")) == (sorted(HOSTS), [])
    assert started(desk) == before


def test_a_canary_that_fails_is_taken_back_with_its_wave_and_no_other_host_is_touched(
    desk: Desk, nodes: list[LabClient], record_property: Any
) -> None:
    """The new state is bad for hosts of one kind: at most one of them ever has it."""
    before, since = {host: unit(desk, host) for host in HOSTS}, started(desk)
    for hosts, more in ((BOOKWORM, ADMITS_EVERYBODY), (TRIXIE, {})):
        for host in hosts:
            desk.edit(host, relay={"connections_per_address": 300, **more})

    with served(nodes, record_property):
        ran = desk.invoke("rollout", timeout_s=600)

    assert ran.code == 7, ran.why()
    assert {event["host"] for event in ran.of("armed")} == {"sg1", "fr1"}
    assert states(ran, "sg1") == ["waiting", "cutting", "confirmed", "going back", "undone"]
    assert states(ran, "fr1") == ["waiting", "cutting", "undone"]
    assert most_down(ran) == 1
    assert ran.proof("sg1")["ok"] and ran.proof("fr1")["ok"]
    assert {host: unit(desk, host) for host in HOSTS} == before
    untouched = ("hk1", "la1")
    assert [states(ran, host) for host in untouched] == [["waiting"], ["waiting"]]
    now = started(desk)
    assert [now[host] for host in untouched] == [since[host] for host in untouched]

    again = desk.invoke("rollout", timeout_s=600)
    assert again.code == 1, again.why()
    assert "--again" in again.failure()["next"]
    assert started(desk) == now


Moment = tuple[str, bool, str]
# They come beside others, at which nothing else is under way.
BESIDE = ("heartbeat", "hello", "facts", "history", "diff", "sending")


def moment(event: Event) -> Moment:
    """Return in which kind of moment an event comes."""
    state = event.get("state") or event.get("status") or event.get("verdict") or ""
    return event["event"], event.get("host") == "headscale", str(state)


def killed_in_a_new_moment(desk: Desk, seen: set[Moment], *words: str) -> Ran | None:
    """Run a rollout, and kill it in the first moment that is not among these.

    Returns None then, and how it has ended when there is no such moment.
    """
    with Underway(desk.stage, "rollout", *words) as rollout:
        event = rollout.until(
            lambda event: event["event"] not in BESIDE and moment(event) not in seen, timeout_s=300
        )
        if event["event"] == "rollout_ended":
            return rollout.end()
    seen.add(moment(event))
    return None


def cancelled_by_a_ci(desk: Desk) -> int:
    """Run the rollout of a CI's job, and cancel it as GitLab does while the first host is cut over.

    Returns its exit code.
    """
    script = f"cd {CHECKOUT}; {gitlab()['rollout']['script'][-1]}"
    argv = [*desk.stage.enter, "bash", "-e", "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job:
        assert job.stdout
        said = list(takewhile(lambda line: " cut over " not in line, job.stdout))
        job.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            job.wait(10)  # then it is killed
        job.kill()
        said += job.stdout
    print(*said[-3:])
    return job.returncode


def test_killed_in_every_moment_it_is_resumed_until_its_end(desk: Desk) -> None:
    """First it is a CI's job that is cancelled, then Ctrl-C is pressed, then it is killed."""
    changed, before = ("sg1", "fr1"), in_force(desk)
    edit_all(desk, {"connections_per_address": 512})  # as it is
    for host in changed:
        desk.edit(host, relay={"connections_per_address": 256})
    assert cancelled_by_a_ci(desk) == 130
    with Underway(desk.stage, "rollout", *RESUME) as rollout:
        rollout.until(lambda event: event["event"] == "armed", timeout_s=300)
        rollout.interrupt()
        ran = rollout.end()
    assert ran.code == 130, ran.why()

    seen, ran = set[Moment](), None
    while ran is None:
        ran = killed_in_a_new_moment(desk, seen, *RESUME)
    print("killed", sorted(seen))
    assert ran.code == 0, ran.why()
    assert {("armed", False, ""), ("kept", False, ""), ("host_state", False, "confirmed")} < seen
    now = in_force(desk)
    for host in HOSTS:
        assert ("256" in unit(desk, host)) == (now[host] > before[host]) == (host in changed)
    for host in (*HOSTS, "hs1"):
        await_agent(desk.stage, host)
        locks = "for lock in /run/derpfleet/*lock; do flock --nonblock $lock true || exit 1; done"
        desk.stage.run_in(host, ["sh", "-c", locks])
    none_open = desk.invoke("rollout", "--resume")
    assert none_open.code == 1 and "no rollout of this site is open" in none_open.failure()["what"]


def test_an_agent_that_is_killed_while_armed_is_asked_and_taken_back(desk: Desk) -> None:
    edit_all(desk, {"connections_per_address": 200})
    before, since = unit(desk, "sg1"), started(desk)
    with Underway(desk.stage, "rollout", "--canary", "sg1") as rollout:
        rollout.until(lambda event: event["event"] == "armed", timeout_s=300)
        kill_agent(desk.stage, "sg1")
        ran = rollout.end()
    assert ran.code == 7, ran.why()
    assert states(ran, "sg1") == ["waiting", "cutting", "lost", "undone"]
    assert ran.proof("sg1")["ok"]
    assert unit(desk, "sg1") == before
    assert {host for host, when in started(desk).items() if when != since[host]} == {"sg1"}
    in_force(desk)


def test_a_second_operator_is_refused_a_rollout_and_may_deploy_a_host_that_waits(desk: Desk) -> None:
    edit_all(desk, None)
    before = in_force(desk)
    with Underway(desk.stage, "rollout", "--canary", "sg1", *IN_TWO_WAVES) as first:
        first.until(lambda event: event["event"] == "host_state" and event["state"] == "confirmed")
        second = desk.invoke("rollout")
        assert second.code == 5, second.why()
        assert "under way" in second.failure()["why"]
        deployed = desk.invoke("deploy", "--host", "la1")
        assert deployed.code == 0, deployed.why()
        ran = first.end()
    assert ran.code == 6, ran.why()
    assert "la1" in ended(ran)["why"] and "generation" in ended(ran)["why"]
    ran = desk.invoke("rollout", "--resume", timeout_s=600)
    assert ran.code == 0, ran.why()
    assert ended(ran)["left_alone"] == ["la1"]
    assert in_force(desk) == {host: number + 1 for host, number in before.items()}


@contextmanager
def headscale_stopped(desk: Desk) -> Iterator[None]:
    desk.stage.run_in("hs1", ["systemctl", "stop", "headscale"])
    try:
        yield
    finally:
        desk.stage.run_in("hs1", ["systemctl", "start", "headscale"])


def test_while_headscale_is_stopped_no_relay_is_restarted(desk: Desk) -> None:
    edit_all(desk, {"connections_per_address": 384})
    before = started(desk)
    with headscale_stopped(desk):
        ran = desk.invoke("rollout", "--canary", "sg1", *IN_TWO_WAVES, timeout_s=600)
        assert ran.code == 6, ran.why()
        assert "verify" in ended(ran)["why"]
        assert started(desk) == before
    with Underway(desk.stage, "rollout", "--resume") as rollout:
        rollout.until(lambda event: event["event"] == "host_state" and event["state"] == "confirmed")
        with headscale_stopped(desk):
            ran = rollout.end()
            assert ran.code == 6, ran.why()
            assert ended(ran)["confirmed"] == ["sg1"]
            assert {host for host, since in started(desk).items() if since != before[host]} == {"sg1"}
    ran = desk.invoke("rollout", "--resume", timeout_s=600)
    assert ran.code == 0, ran.why()
    assert sorted(ended(ran)["confirmed"]) == sorted(HOSTS)
