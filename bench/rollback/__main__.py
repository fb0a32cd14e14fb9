"""`python -m bench.rollback`: what a deploy costs that can take itself back.

It raises a lab with one relay host, headscale and two real nodes, and takes it down again. Prints a
table for bench/README.md, and the load average. `--only` names parts of it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

import lab
from bench.rollback import figures
from bench.rollback.far import ssh_of
from bench.rollback.operator import Operator
from bench.rollback.pings import pinging
from tests.e2e.desk import Desk
from tests.e2e.steps import exchange, small

Row = tuple[str, str, str, bool]  # figure, goal, measured, met
RUNS = 3


def main() -> None:
    """Run the program: see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench.rollback", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-rollback-") as folder:
        stage = lab.up(
            Path(folder) / "lab",
            only=["hk1", "hs1", "acme", "site-a", "site-b"],
            progress=lambda line: print(f"{time.monotonic() - began:6.1f} s  {line}", file=sys.stderr),
        )
        try:
            operator = Operator.of(stage, Path(folder))
            operator.run("deploy")
            rows = [row for name in given.only for row in shown(PARTS[name](operator))]
        finally:
            lab.down(stage.root)
    print(f"\nLoad average {os.getloadavg()[2]:.1f}.\n")
    print("| figure | goal | measured | met |\n| --- | --- | --- | --- |")
    for figure, goal, measured, met in rows:
        print(f"| {figure} | {goal} | {measured} | {'yes' if met else 'NO'} |")


def shown(rows: Iterator[Row]) -> Iterator[Row]:
    """Pass the rows on, and show each at once."""
    for row in rows:
        print(*row, sep="  ", file=sys.stderr, flush=True)
        yield row


def clients(operator: Operator) -> Iterator[Row]:
    """Watch two real nodes over upgrades of our relay, then over restarts of derper."""
    one, other = (operator.stage.clients[name] for name in ("site-a", "site-b"))
    for node in (one, other):
        node.join()
    exchange((one, other), "hk")
    with pinging(one, other) as pings:
        start = time.monotonic()
        time.sleep(figures.AFTER_S)
        calm = pings.gap_s(start, time.monotonic())
        ours = [figures.upgrade_gap(operator, pings) for _ in range(RUNS)]
        operator.edit(relay=figures.DERPER)
        operator.run("deploy")
        exchange((one, other), "hk")
        derper = [figures.restart_gap(operator.stage, pings) for _ in range(RUNS)]
        operator.edit(relay=None)
        operator.run("deploy")
    of_derper, worst = max(derper), max(ours)
    measured = (
        f"{_seconds(ours)} (undisturbed {calm:.2f} s); derper restarted: {_seconds(derper)}, "
        f"{of_derper / worst:.1f} ×"
    )
    yield "longest gap of a real node in an upgrade", "≤ 2.5 s", measured, worst <= 2.5


def back(operator: Operator) -> Iterator[Row]:
    """Let a verdict fail."""
    taken = [figures.taken_back_s(operator) for _ in range(RUNS)]
    yield "failed verdict to the old release proved", "≤ 10 s", _seconds(taken), max(taken) <= 10


def killed(operator: Operator) -> Iterator[Row]:
    """Let the controller die while a release is armed."""
    for words, goal_s, silent, runs in (("hang-up", 5, False, RUNS), ("silence", 65, True, 1)):
        returned = [figures.killed(operator, silent=silent) for _ in range(runs)]
        serves, ends = [one.serves_s for one in returned], [one.ends_s for one in returned]
        figure = f"controller killed while armed: the old release serves again, on {words}"
        measured = f"{_seconds(serves)}; the way back ended after {_seconds(ends)}"
        yield figure, f"≤ {goal_s} s", measured, max(serves) <= goal_s


def turns(operator: Operator) -> Iterator[Row]:
    """Count the turns on the way to the host, on a site whose relay is open."""
    desk, before = Desk(operator.stage), operator.stage.site_file.read_text()
    key = yaml.safe_load(before)["defaults"]["ssh"]["key"]
    small(desk, "hk1", {"ssh": ssh_of(operator.stage, key)}, acme=True)
    figures.shipped(operator, "deploy")
    idle = figures.shipped(operator, "deploy")
    yield "no-op deploy", "6 turns", f"{idle.wire.turns} turns", idle.wire.turns <= 6
    operator.make_release()
    sent, undone, again = (figures.shipped(operator, verb) for verb in ("deploy", "rollback", "deploy"))
    figure = "cut-over of a release, keep included"
    yield f"{figure}; it is sent", "≤ 8 turns", _traffic(sent), sent.wire.turns <= 8
    yield f"{figure}; the host has it", "≤ 8 turns", _traffic(again), again.wire.turns <= 8
    yield "rollback of that release", "0 contents", _traffic(undone), undone.contents == 0
    operator.stage.site_file.write_text(before)
    operator.run("deploy")


def room(operator: Operator) -> Iterator[Row]:
    """Deploy twenty releases, and look at the room that they take."""
    state, programs, number = figures.kept_mib(operator, 20)
    measured = f"{state:.1f} MiB, beside {number} releases with {programs:.0f} MiB"
    yield "contents on the host after 20 releases", "≤ 60 MB", measured, state * 1.049 <= 60


def _traffic(shipped: figures.Shipped) -> str:
    wire = shipped.wire
    return f"{wire.turns} turns, {shipped.contents} contents, {wire.bytes_up / 1024:,.0f} KiB sent"


def _seconds(runs: list[float]) -> str:
    """Return the worst of some runs, with the best in brackets."""
    best = f" (best of {len(runs)}: {min(runs):.2f} s)" if len(runs) > 1 else ""
    return f"{max(runs):.2f} s{best}"


PARTS: dict[str, Callable[[Operator], Iterator[Row]]] = {
    "clients": clients,
    "back": back,
    "killed": killed,
    "turns": turns,
    "room": room,
}

if __name__ == "__main__":
    main()
