"""What bad input and bad luck get, a row of the table after the other. The tests go on from one another: run the file as a whole."""

from __future__ import annotations

import contextlib
import getpass
import json
import re
import socket
import time
from collections.abc import Callable, Iterator

import pytest

import lab
from lab import faults
from lab.process import wait_for
from tests.e2e.conftest import Desk, Ran
from tests.e2e.underway import Underway, terminal, told

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("faults"), pytest.mark.timeout(900)]

# A unit of this name is what installs packages when a VPS boots for the first time.
CLOUD_INIT = "cloud-final"
HOLD_LOCK = """
import fcntl, time
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
open("/run/lock-is-held", "w").close()
time.sleep(3600)
"""
# In the middle: something is begun that dpkg has not written down whole.
FREEZE_DPKG = """
until pids=$(pgrep -x dpkg) && kill -STOP $pids && ls /var/lib/dpkg/updates | grep -q '^[0-9]'; do
  kill -CONT $pids; sleep 0.005
done 2>/dev/null
"""
LISTEN = """
import socket, time
kind = socket.SOCK_{kind}
sock = socket.socket(socket.AF_INET, kind)
sock.bind(("0.0.0.0", {port}))
if kind == socket.SOCK_STREAM: sock.listen()
time.sleep(3600)
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    """A lab of this file's own: its first tests want bare hosts."""
    root = tmp_path_factory.mktemp("faults") / "lab"
    try:
        yield lab.up(root, progress=print, only=["hk1", "sg1", "hs1", "acme"])
    finally:
        lab.down(root)


@pytest.fixture(scope="module")
def desk(stage: lab.Lab) -> Desk:
    return Desk(stage)


@contextlib.contextmanager
def unit(stage: lab.Lab, host: str, name: str, program: str) -> Iterator[None]:
    """A Python program as a transient unit of this name on a host."""
    stage.run_in(host, ["systemd-run", f"--unit={name}", "--quiet", "--collect", "python3", "-c", program])
    try:
        yield
    finally:
        stage.run_in(host, ["systemctl", "stop", f"{name}.service"], check=False)


def state(stage: lab.Lab, host: str) -> str:
    """Everything on the host that a deploy might change: files with their times, units, firewall, sockets."""
    files = "find /etc /opt /usr /root /var/lib/dpkg /var/lib/derpfleet -xdev -printf '%p %C@ %s\\n' 2>/dev/null | sort"
    script = f"{files}; systemctl list-unit-files --no-legend; nft list ruleset 2>/dev/null; ss -Hltun"
    return stage.run_in(host, ["sh", "-c", script]).stdout


def installed(stage: lab.Lab, host: str) -> set[str]:
    """Those of the packages in question that a host has whole."""
    asked = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", "nginx", "nginx-common", "nftables"]
    lines = stage.run_in(host, asked, check=False).stdout.splitlines()
    return {line.split()[0] for line in lines if line.endswith(" installed")}


def purge(stage: lab.Lab, host: str) -> None:
    """Takes those packages away again, where they are."""
    if found := sorted(installed(stage, host)):
        stage.run_in(host, ["apt-get", "purge", "-qq", "-y", "--auto-remove", *found], timeout_s=120)


def journal(stage: lab.Lab, host: str) -> dict[str, list[str]]:
    """What the last run on a host did, as its agent wrote it down there: ids by status."""
    script = "cat $(ls -t /var/lib/derpfleet/journal/*.jsonl | head -1)"
    lines = [json.loads(line) for line in stage.run_in(host, ["sh", "-c", script]).stdout.splitlines()]
    return {status: [line["id"] for line in lines if line.get("status") == status] for status in ("ok", "changed", "skipped", "failed")}


def await_agent(stage: lab.Lab, host: str) -> None:
    """Until no agent is left on the host."""
    wait_for(
        lambda: stage.run_in(host, ["pgrep", "--full", "READY 1"], check=False).returncode == 1, timeout_s=60, what="the agent does not end"
    )


def words(text: str) -> str:
    """Without line breaks, to be searched."""
    return " ".join(text.split())


def regions(stage: lab.Lab) -> set[str]:
    """The ids that headscale serves now."""
    return set(stage.headscale.regions())


def kill_agent(stage: lab.Lab, host: str) -> None:
    """SIGKILL to the agent's Python and to nothing else."""
    pids = stage.run_in(host, ["pgrep", "--full", "READY 1"]).stdout.split()
    stage.run_in(host, ["kill", "-KILL", *pids], check=False)


# The row of host keys


def test_an_unknown_host_key_stops_and_says_how_to_look(stage: lab.Lab) -> None:
    pinned, before = stage.known_hosts.read_text(), state(stage, "hk1")
    try:
        stage.known_hosts.write_text("")
        code, text = told(stage, "deploy", "--host", "hk1")
        assert code == 3
        assert "the host key is not known" in text
        assert "look at it and accept it with: invoke trust --host hk1" in text
        assert stage.known_hosts.read_text() == ""
    finally:
        stage.known_hosts.write_text(pinned)
    assert state(stage, "hk1") == before


def test_a_changed_host_key_stops_and_says_so(stage: lab.Lab) -> None:
    pinned = stage.known_hosts.read_text()
    lines = {name: next(line for line in pinned.splitlines() if line.startswith(name)) for name in ("hk1", "sg1")}
    changed = lines["hk1"].rsplit(" ", 1)[0] + " " + lines["sg1"].rsplit(" ", 1)[1] + "\n"
    try:
        stage.known_hosts.write_text(changed)
        for verb in ("deploy", "check", "renew"):
            code, text = told(stage, verb, "--host", "hk1")
            assert code == 3
            assert "the host key has CHANGED" in text
            assert "invoke trust --host hk1 --replace" in text
        assert stage.known_hosts.read_text() == changed
    finally:
        stage.known_hosts.write_text(pinned)


# The row of sudo, Python and noise: one case as a person meets it, the others in tests/engine/test_session.py


def test_a_wrong_sudo_password_is_named(stage: lab.Lab, edited: Callable[..., None]) -> None:
    before = state(stage, "hk1")
    edited("hk1", ssh={"user": "ops", "key": "ssh/id_ed25519", "sudo_password": "cmd:echo mistyped"})
    code, text = told(stage, "deploy", "--host", "hk1")
    assert code == 3
    assert "sudo did not take the password" in text
    assert "check ssh.sudo_password" in text
    assert "mistyped" not in text
    assert state(stage, "hk1") == before


# The row of taken ports


@pytest.mark.parametrize(("kind", "port", "entry", "key"), [("STREAM", 443, "443/tcp", "https"), ("DGRAM", 3478, "3478/udp", "stun")])
def test_a_taken_port_is_told_before_anything_is_changed(stage: lab.Lab, kind: str, port: int, entry: str, key: str) -> None:
    with unit(stage, "hk1", "other-program", LISTEN.format(kind=kind, port=port)):
        before = state(stage, "hk1")
        code, text = told(stage, "deploy", "--host", "hk1")
        assert state(stage, "hk1") == before
    assert code == 1
    assert "nothing was changed, because something is in the way" in text
    assert f"port {entry} of hk1" in text
    assert "is taken by python3 (pid " in text
    assert ", other-program.service)" in text
    assert f"set hosts.hk1.ports.{key} to another port" in text


# The rows of the package manager's lock and of two deploys at once


def test_the_second_of_two_deploys_says_who_is_at_work_and_since_when(stage: lab.Lab) -> None:
    with unit(stage, "hk1", CLOUD_INIT, HOLD_LOCK), Underway(stage, "deploy", "--host", "hk1") as first:
        first.until(lambda event: event["event"] == "waiting")
        began = time.time()
        code, text = told(stage, "deploy", "--host", "hk1")
        assert time.time() - began < 10
        assert code == 5
        who, since = re.search(r"the host is locked by (\S+) since (\S+ \S+)", text).groups()
        assert who == f"{getpass.getuser()}@{socket.gethostname()}"
        assert began - 60 < time.mktime(time.strptime(since, "%Y-%m-%d %H:%M:%S")) < began
        assert told(stage, "check", "--host", "hk1")[0] == 5
        first.interrupt()
        assert first.end(timeout_s=20).code == 130


def test_a_lock_of_cloud_init_is_waited_for_and_named(stage: lab.Lab) -> None:
    """The deadline of this wait is shown in tests/agent/test_packages.py."""
    with terminal(stage, "deploy", "--host", "sg1") as deploy:
        with unit(stage, "sg1", CLOUD_INIT, HOLD_LOCK):
            deploy.until(" of cloud-final.service")
            time.sleep(3)
            [told] = [line for line in deploy.screen().lines if "waiting" in line]
            assert re.search(r"package:\S+: the package manager's lock is held by python3 \(pid \d+\) of cloud-final.service", told)
            assert installed(stage, "sg1") == set()
        deploy.until("package:nginx")
        assert installed(stage, "sg1") >= {"nginx", "nftables"}


# The row of Ctrl-C


def test_ctrl_c_ends_after_the_resource_in_hand_with_a_clean_terminal(stage: lab.Lab) -> None:
    with terminal(stage, "deploy", "--host", "hk1") as deploy:
        deploy.until("package:nftables")
        deploy.press_ctrl_c()
        assert deploy.end() == 130
        screen = deploy.screen()
        assert "stopping after the resource in hand; once more to abandon" in screen.text
        assert "next  run the same command again: it goes on from there" in screen.text
        assert screen.cursor_visible
        assert (screen.column, screen.lines[screen.row :]) == (0, [""])
        assert deploy.is_as_before()
    assert installed(stage, "hk1") >= {"nginx", "nftables"}
    assert stage.run_in("hk1", ["dpkg", "--audit"]).stdout == ""
    assert stage.run_in("hk1", ["pgrep", "--full", "READY 1"], check=False).stdout == ""
    run = journal(stage, "hk1")
    assert run["changed"][-1] == "package:nftables"
    assert run["failed"] == []
    assert len(run["skipped"]) > 20


def test_ctrl_c_twice_abandons_at_once_and_leaves_a_clean_terminal_too(stage: lab.Lab) -> None:
    purge(stage, "hk1")
    with terminal(stage, "deploy", "--host", "hk1") as deploy:
        with unit(stage, "hk1", CLOUD_INIT, HOLD_LOCK):
            pass
        deploy.until("package:nftables")
        deploy.press_ctrl_c()
        deploy.until("once more to abandon")
        deploy.press_ctrl_c()
        began = time.monotonic()
        assert deploy.end() == 130
        assert time.monotonic() - began < 2
        screen = deploy.screen()
        assert "the agents finish the resource in hand on their own" in words(screen.text)
        assert "Traceback" not in screen.text
        assert screen.cursor_visible
        assert (screen.column, screen.lines[screen.row :]) == (0, [""])
        assert deploy.is_as_before()
    await_agent(stage, "hk1")
    assert installed(stage, "hk1") >= {"nginx", "nftables"}


# The row of cut connections, killed agents and power cuts


def deployed(stage: lab.Lab, host: str) -> Ran:
    """A deploy, once the agent of a run that was cut off has ended by itself."""
    await_agent(stage, host)
    return Desk(stage).invoke("deploy", "--host", host, timeout_s=600)


def test_a_power_cut_while_packages_are_unpacked(stage: lab.Lab) -> None:
    """As a plug that is pulled: the line is dead first, so that nobody hears of it."""
    purge(stage, "hk1")
    host = stage.hosts["hk1"]
    with Underway(stage, "deploy", "--host", "hk1") as deploy:
        deploy.until(lambda event: event["event"] == "diff" and event["id"].startswith("package:"))
        stage.run_in("hk1", ["sh", "-c", FREEZE_DPKG], timeout_s=60)
        with faults.unplugged(stage, "hk1"):
            host.stop()
            ran = deploy.end(timeout_s=120)
    assert ran.code == 3
    assert ran.failure()["what"] == "the connection was lost"
    host.boot()
    assert "dpkg was interrupted" in stage.run_in("hk1", ["apt-get", "-y", "install", "nginx"], check=False).stderr
    ran = Desk(stage).invoke("deploy", "--host", "hk1", "--only", "package:nginx", "--only", "package:nftables")
    assert ran.counts("hk1")["failed"] == 0, ran.of("failure")
    assert installed(stage, "hk1") >= {"nginx", "nftables"}


def test_an_ssh_connection_cut_in_mid_run(stage: lab.Lab) -> None:
    with Underway(stage, "deploy", "--host", "hk1") as deploy:
        deploy.until(lambda event: event["event"] == "diff" and event["id"].startswith("tree:"))
        assert faults.hang_up(stage, "hk1", 22) == 1
        ran = deploy.end(timeout_s=90)
    assert ran.code == 3
    assert ran.failure()["what"] == "the connection was lost"
    assert "run the same command again" in ran.failure()["next"]
    await_agent(stage, "hk1")
    run = journal(stage, "hk1")
    assert run["failed"] == []
    assert run["changed"]
    assert run["skipped"]


@pytest.mark.parametrize("after", [1, 2, 3, 5, 8])
def test_an_agent_killed_in_mid_run(stage: lab.Lab, after: int) -> None:
    """Each run comes a little further than the one before it."""
    with Underway(stage, "deploy", "--host", "hk1") as deploy:
        for _ in range(after):
            event = deploy.until(lambda event: event["event"] in ("diff", "proof") and event.get("host") == "hk1")
            assert event["event"] == "diff", "the run came to its end before it was killed"
        kill_agent(stage, "hk1")
        ran = deploy.end(timeout_s=90)
    assert ran.code == 3
    assert ran.failure()["what"] == "the connection was lost"
    assert not ran.of("proof", "hk1")
    assert regions(stage) == {"910"}


def test_the_next_deploy_converges_from_all_of_that(stage: lab.Lab) -> None:
    ran = deployed(stage, "hk1")
    assert ran.code == 0, ran.of("failure")
    assert ran.proof("hk1")["packets_passed"]
    assert regions(stage) == {"901", "910"}
    again = deployed(stage, "hk1")
    assert again.code == 0
    assert again.changed("hk1") == again.changed("headscale") == []
