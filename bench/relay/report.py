"""Medians, ratios and the table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.relay.generator import Run
from bench.relay.regimes import Regime

Results = Mapping[str, Mapping[str, Sequence[Run]]]  # regime -> server -> runs

BEGIN, END = "<!-- table -->", "<!-- end -->"
NAMES = {"derper": "derper", "relay": "ours", "two-workers": "two workers"}


def table(regimes: Sequence[Regime], results: Results) -> str:
    """Return the Markdown tables, one for each pair of servers that was compared.

    A server that did not run leaves its columns empty.
    """
    measured = [regime for regime in regimes if regime.name in results]
    tables = []
    for sides in dict.fromkeys(regime.sides for regime in measured):
        left, right = (NAMES.get(name, name) for name in sides)
        left = "one worker" if sides == ("relay", "two-workers") else left
        head = (
            f"| regime | unit | {left} | {right} | ratio | goal | met | load, "
            f"{left} / {right} |\n|{'---|' * 8}"
        )
        rows = (row for regime in measured if regime.sides == sides for row in _rows(regime, results))
        tables.append("\n".join([head, *rows]))
    return "\n\n".join(tables)


def _rows(regime: Regime, results: Results) -> list[str]:
    runs = results[regime.name]
    sides = [runs.get(name, ()) for name in regime.sides]
    loads = " / ".join(_number(_median([regime.load(run) for run in side])) for side in sides)
    rows = []
    for figure in regime.figures:
        a, b = (_median([figure.of(run) for run in side]) for side in sides)
        goal = f"≤ {_number(figure.limit)}" if figure.limit is not None else ""
        if figure.goal is not None:
            goal = f"{'≥' if figure.more_is_better else '≤'} {figure.goal} ×"
        ratio = met = ""
        if a is not None and b is not None:
            ratio = f"{b / a:.2f} ×" if a > 0 else ""
            met = "yes" if figure.met(a, b) else "**no**"
        rows.append(
            f"| {figure.title} | {figure.unit} | {_number(a)} | {_number(b)} | "
            f"{ratio} | {goal} | {met} | {loads} |"
        )
    return rows


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def conditions(about: Mapping[str, Any]) -> str:
    """Return one line with the conditions under which the figures were taken."""
    load = about["load_average"][1]
    whose = "the distribution's " if about["python_path"].startswith("/usr/bin/") else ""
    return (
        f"{about['when'][:10]}, medians of {about['runs']} alternating runs of {about['seconds']:g} s, "
        f"counted work × {about['scale']:g}"
        f"{', real-time priority' if about['realtime'] else ''}. {about['cores']} "
        f"cores, Linux {about['kernel']}, "
        f"{whose}Python {about['python']}, {about['openssl']}; load average {load:.1f} (below 2 when alone)."
    )


def insert(readme: Path, text: str) -> None:
    """Replace the text between the markers of `readme`."""
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def record(regimes: Sequence[Regime], results: Results, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return all readings, for the JSON file."""
    return {
        "about": dict(about),
        "regimes": {
            regime.name: {
                server: [
                    {
                        "figures": {figure.title: figure.of(run) for figure in regime.figures},
                        "events": {
                            name: {**e.fields, "cpu_s": e.usage.cpu_s, "rss": e.usage.rss}
                            for name, e in run.items()
                        },
                    }
                    for run in runs
                ]
                for server, runs in results[regime.name].items()
            }
            for regime in regimes
            if regime.name in results
        },
    }
