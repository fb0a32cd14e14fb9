"""`python -m bench.deploy`: every tool makes and keeps the 26 resources of `wanted.py` on one host,
side by side.

Per round and tool: the host is reset, the tool makes everything (first run), the state is compared
with that of the other tools, then it runs again several times (no-op). Prints tables for
bench/README.md; `--json` keeps every single run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.deploy.measure import Run, measured
from bench.deploy.stage import run_in_lab
from bench.deploy.tools import TOOLS, Target, add_login, behind, versions
from bench.deploy.wanted import RESET, STATE, write_contents
from bench.environment import CACHE
from lab.delay import parse_seconds
from lab.delaying import delaying

Runs = dict[str, dict[str, list[Run]]]  # tool -> "first" | "no-op" -> runs


def on_host(target: Target, script: str) -> str:
    """Return the standard output of a script on the host, run without the proxy."""
    return subprocess.run(
        [*target.ssh(), "sh"], input=script, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def compare(target: Target, *, rtt_s: float, rounds: int, noops: int, tools: Sequence[str]) -> Runs:
    """Do all runs.

    Raises RuntimeError when a tool fails, makes another state, or changes something in a no-op.
    """
    runs: Runs = {tool: {"first": [], "no-op": []} for tool in tools}
    contents = CACHE / "contents"
    write_contents(contents)
    agreed = ""
    with delaying((target.address, target.port), rtt_s=rtt_s) as proxy, tempfile.TemporaryDirectory() as work:
        through = behind(target, proxy.port, Path(work, "known_hosts"))
        for number in range(rounds):
            for tool in tools:
                program = TOOLS[tool](through, Path(work, tool.replace(" ", "")), contents)
                on_host(target, RESET)
                runs[tool]["first"].append(measured(program, proxy))
                state = on_host(target, STATE)
                agreed = agreed or state
                if state != agreed:
                    raise RuntimeError(f"{tool} made another state:\n{state}\nnot\n{agreed}")
                for _ in range(noops):
                    run = measured(program, proxy)
                    if run.changed:
                        raise RuntimeError(f"{tool} changed {run.changed} resources in a no-op")
                    runs[tool]["no-op"].append(run)
                print(
                    f"round {number + 1}/{rounds}  {tool:18}  " + "  ".join(summary(runs[tool])),
                    file=sys.stderr,
                    flush=True,
                )
        on_host(target, RESET)
    return runs


def summary(kinds: dict[str, list[Run]]) -> Iterable[str]:
    """Yield one tool's last runs in words."""
    for kind, all_runs in kinds.items():
        last = all_runs[-1]
        yield f"{kind}: {last.wall_s:.2f} s, {last.turns} turns"


def table(runs: Runs, kind: str) -> str:
    """Return a Markdown table of the best run (in brackets the median); each × compares with the
    first tool's."""
    heads = (
        "tool", "program s", "×", "on the wire s", "×", "turns", "×", "KiB sent", "KiB received",
        "controller CPU s",
    )
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    base: dict[str, float] = {}
    for tool, kinds in runs.items():
        values = {name: [getattr(run, name) for run in kinds[kind]] for name in asdict(kinds[kind][0])}
        best, middle = (
            {name: pick(numbers) for name, numbers in values.items()} for pick in (min, statistics.median)
        )
        base = base or best
        cells = [tool]
        for name in ("wall_s", "wire_s"):
            cells += [f"{best[name]:.2f} ({middle[name]:.2f})", f"{best[name] / base[name]:.1f}"]
        cells += [f"{best['turns']}", f"{best['turns'] / base['turns']:.1f}"]
        cells += [
            f"{best['bytes_up'] / 1024:.0f}",
            f"{best['bytes_down'] / 1024:.0f}",
            f"{best['cpu_s']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the program: see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.deploy", description="26 resources by derpfleet, ansible, mitogen and pyinfra"
    )
    add_login(parser)
    parser.add_argument("--rtt", type=parse_seconds, default=0.1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--noops", type=int, default=3, help="no-op runs per round")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if not given.address:
        sys.exit(run_in_lab("bench.deploy", sys.argv[1:]))
    target = Target(given.address, given.port, given.key, given.known_hosts)
    runs = compare(target, rtt_s=given.rtt, rounds=given.rounds, noops=given.noops, tools=given.tools)
    print(
        f"Round trip {given.rtt * 1000:.0f} ms; {given.rounds} first runs and "
        f"{given.rounds * given.noops} no-ops each; "
        f"load average {os.getloadavg()[2]:.1f}; "
        + ", ".join(f"{name} {version}" for name, version in versions().items())
    )
    for kind in ("no-op", "first"):
        print(f"\n{kind}\n\n{table(runs, kind)}")
    if given.json:
        raw = {
            tool: {kind: [asdict(run) for run in all_runs] for kind, all_runs in kinds.items()}
            for tool, kinds in runs.items()
        }
        given.json.write_text(
            json.dumps({"rtt_ms": given.rtt * 1000, "versions": versions(), "runs": raw}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
