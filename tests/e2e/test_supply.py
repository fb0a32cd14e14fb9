"""A host without a way out: its packages come over SSH, and a transfer that is cut off goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.desk import CHECKOUT, Desk, Ran
from tests.e2e.far import far_away
from tests.e2e.underway import verb

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
ONLY = ("hs1", "hk1", "acme")
HOST = "hk1"
LOCKED = 5


def cut_off(desk: Desk) -> str:
    """Deploy, and cut the connection in the middle of a large content. Return its hash."""
    with far_away(desk, HOST, "400ms") as proxy:
        argv = verb(desk.stage, "deploy", "--host", HOST, "--json")
        blob = ""
        with subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout
            for line in run.stdout:
                event = json.loads(line)
                is_half_sent = event["event"] == "sending" and event["sent"] > event["size"] / 2
                if is_half_sent and not blob and event["size"] > 4_000_000:
                    blob = event["blob"]
                    proxy.send_signal(signal.SIGTERM)
        assert run.returncode == 3
    return blob


def deployed(desk: Desk) -> Ran:
    """Deploy once the agent of the run that was cut off has ended."""
    deadline = time.monotonic() + 60
    while (ran := desk.invoke("deploy", "--host", HOST, timeout_s=600)).code == LOCKED:
        assert time.monotonic() < deadline
    assert ran.code == 0, ran.why()
    return ran


def test_a_host_without_a_way_out_is_deployed(desk: Desk, tmp_path: Path) -> None:
    stage = desk.stage
    stage.run_in(HOST, ["apt-get", "-qq", "update"])
    stage.run_in(HOST, ["ip", "route", "delete", "default"])
    sources = stage.run_in(HOST, ["sh", "-c", "cat /etc/apt/sources.list; ls /etc/apt/sources.list.d"]).stdout
    lists = stage.run_in(HOST, ["ls", "-l", "/var/lib/apt/lists"]).stdout
    desk.edit(HOST, packages={"from": "controller"})
    blob = cut_off(desk)
    ran = deployed(desk)
    assert ran.proof(HOST)["packets_passed"]
    assert "package:nginx" in ran.changed(HOST)
    [want] = [event for event in ran.of("want", HOST) if event["blobs"]]
    assert blob in want["partial"]
    first = next(event for event in ran.of("sending", HOST) if event["blob"] == blob)
    assert first["sent"] > want["partial"][blob][0] > 0
    again = desk.invoke("deploy", "--host", HOST, env={"DERPFLEET_OFFLINE": "1"})
    assert again.code == 0, again.why()
    assert again.changed(HOST) == []
    now = stage.run_in(HOST, ["sh", "-c", "cat /etc/apt/sources.list; ls /etc/apt/sources.list.d"]).stdout
    assert (now, stage.run_in(HOST, ["ls", "-l", "/var/lib/apt/lists"]).stdout) == (sources, lists)
    assert stage.run_in(HOST, ["test", "-e", "/var/cache/derpfleet"], check=False).returncode == 1

    bundle = tmp_path / "derpfleet.bundle"
    made = desk.invoke("bundle", "--out", str(bundle), "--host", HOST)
    assert made.code == 0, made.why()
    [event] = made.of("bundle")
    kinds = {name.partition("/")[0] for name in event["files"]}
    assert kinds == {"wheels", "packages"}
    used = desk.invoke("bundle", "--use", str(bundle), "--sha256", event["sha256"])
    assert used.of("bundle")[0]["files"] == event["files"]
