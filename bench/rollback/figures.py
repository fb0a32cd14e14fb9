"""The figures, each by what an operator or a real node sees. They follow one another in a lab."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass

import lab
from bench.rollback.far import Wire, proxied
from bench.rollback.operator import Operator
from bench.rollback.pings import Pings
from lab import faults
from lab.process import wait_for

RELAY = "derpfleet-relay.service"
UNCONFIRMED = "var/lib/derpfleet/unconfirmed.jsonl"
# Healthy by its own check, and never proved: a stranger gets in.
ADMITS_EVERYBODY = {
    "verify_client_url": "http://127.0.0.1:9/verify", "verify_insecure": True, "verify_fail_open": True,
}  # fmt: skip
DERPER = {"program": "derper", "under": "systemd"}
AFTER_S = 6.0  # how long nodes are watched after a restart


def upgrade_gap(operator: Operator, pings: Pings) -> float:
    """Deploy another release. Return the longest gap of the nodes meanwhile, in s."""
    operator.make_release()
    start = time.monotonic()
    if not operator.run("deploy").ran.of("kept", "hk1"):
        raise RuntimeError("the release was not another one")
    time.sleep(AFTER_S)
    return pings.gap_s(start, time.monotonic())


def restart_gap(stage: lab.Lab, pings: Pings) -> float:
    """Restart the relay's unit as an operator does. Return the longest gap of the nodes, in s."""
    start = time.monotonic()
    stage.run_in("hk1", ["systemctl", "restart", RELAY])
    time.sleep(AFTER_S)
    return pings.gap_s(start, time.monotonic())


def taken_back_s(operator: Operator) -> float:
    """Deploy a relay that admits all. Return the s from the verdict to the old one's proof."""
    operator.edit(relay=ADMITS_EVERYBODY)
    deploy = operator.run("deploy", code=7)
    operator.edit(relay=None)
    failed = deploy.moments("hk1", lambda event: event["event"] == "proof" and not event["ok"])
    held = deploy.moments("hk1", lambda event: event["event"] == "proof" and event["ok"])
    if len(failed) != 3 or not held:
        raise RuntimeError(f"{len(failed)} proofs failed, {len(held)} held")
    return held[-1] - failed[-1]


@dataclass(frozen=True)
class Returned:
    """The way back after a kill, in s from it: when the old release served, and when it ended."""

    serves_s: float
    ends_s: float


def killed(operator: Operator, *, silent: bool) -> Returned:
    """Kill the controller while a release is armed, and wait until the old one is back.

    `silent`: the connection does not end, as when a laptop is closed.
    """
    stage, before = operator.stage, _current(operator.stage)
    operator.edit(relay=ADMITS_EVERYBODY)  # so that nothing is kept before the kill
    operator.make_release()
    left = stage.hosts["hk1"].root / UNCONFIRMED
    with operator.start("deploy", "--host", "hk1") as deploy:
        deploy.until(lambda event: event["event"] == "armed")
        with faults.blocked(stage, "hk1", 22) if silent else nullcontext():
            at = time.monotonic()
            deploy.kill()
            wait_for(lambda: not left.exists(), timeout_s=90, what="the host does not go back")
            ends_s = time.monotonic() - at
    operator.edit(relay=None)
    if _current(stage) != before:
        raise RuntimeError("another release is in force than before")
    # The unit says when it is ready. Hosts of the lab have this machine's clock.
    ask = ["systemctl", "show", "--value", "--property=ActiveEnterTimestampMonotonic", RELAY]
    return Returned(int(stage.run_in("hk1", ask).stdout) / 1e6 - at, ends_s)


def _current(stage: lab.Lab) -> str:
    """Return the release that is in force."""
    return stage.run_in("hk1", ["readlink", "/opt/derpfleet/current"]).stdout


@dataclass(frozen=True)
class Shipped:
    """A verb's traffic to the host. `contents`: how many it wanted."""

    wire: Wire
    contents: int


def shipped(operator: Operator, *words: str) -> Shipped:
    """Run a verb for hk1 at a distance, and return its traffic to the host."""
    with proxied(operator.stage) as wire:
        ran = operator.run(*words).ran
    return Shipped(wire, sum(len(event["blobs"]) for event in ran.of("want", "hk1")))


def kept_mib(operator: Operator, deploys: int) -> tuple[float, float, int]:
    """Deploy that many releases. Return MiB of our state and of the releases, and their number."""
    for _ in range(deploys):
        operator.make_release()
        operator.run("deploy")
    script = "du -sk /var/lib/derpfleet; du -sk /opt/derpfleet; ls -d /opt/derpfleet/releases/*"
    ours, releases, *names = operator.stage.run_in("hk1", ["sh", "-c", script]).stdout.splitlines()
    state, programs = (int(line.split()[0]) / 1024 for line in (ours, releases))
    return state, programs, len(names)
