"""The regimes: each is one run of the generator and the figures read from it, with their goals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.relay.generator import Run

MB = 1_000_000


@dataclass(frozen=True)
class Figure:
    """One number of a run.

    The goal is a ratio to derper's or, when `limit` is given, an absolute value for ours.
    """

    title: str
    unit: str
    of: Callable[[Run], float]
    more_is_better: bool = False
    goal: float | None = None
    limit: float | None = None

    def met(self, reference: float, ours: float) -> bool:
        value, goal = (ours, self.limit) if self.limit is not None else (ours / reference, self.goal)
        return goal is None or (value >= goal if self.more_is_better else value <= goal)


@dataclass(frozen=True)
class Regime:
    """One regime.

    `args` are the generator's; `seconds` scales the timed window and `--scale` the counted work.
    """

    name: str
    args: tuple[str, ...]
    figures: tuple[Figure, ...]
    # packets (or handshakes, answers, connections) a second: ratios hold only between equal loads
    load: Callable[[Run], float]
    counted: tuple[tuple[str, int], ...] = ()  # flags whose value is an amount of work
    sides: tuple[str, str] = ("derper", "relay")  # the servers that are compared

    def argv(self, seconds: float, scale: float) -> list[str]:
        amounts = [arg for flag, n in self.counted for arg in (flag, str(max(2, int(n * scale))))]
        return [*self.args, *amounts, "-seconds", str(seconds)]


def _between(run: Run, first: str, last: str) -> tuple[float, float]:
    """Return the CPU seconds and resident bytes that the server gained between two events."""
    a, b = run[first].usage, run[last].usage
    return b.cpu_s - a.cpu_s, float(b.rss - a.rss)


def packets_per_cpu_second(run: Run) -> float:
    return float(run["end"].fields["delivered"]) / _between(run, "begin", "end")[0]


def delivered_per_second(run: Run) -> float:
    end = run["end"].fields
    return float(end["delivered"]) / float(end["seconds"])


def _field(event: str, key: str) -> Callable[[Run], float]:
    return lambda run: float(run[event].fields[key])


def _throughput(title: str, goal: float | None) -> Figure:
    return Figure(title, "packets per CPU-second", packets_per_cpu_second, more_is_better=True, goal=goal)


def _pairs(
    name: str, title: str, goal: float | None, *args: str, sides: tuple[str, str] = ("derper", "relay")
) -> Regime:
    return Regime(name, ("pairs", *args), (_throughput(title, goal),), delivered_per_second, sides=sides)


def _paced(rate: int, goal: float) -> Regime:
    title = f"paced, {rate:,} packets/s over 20 pairs"
    return Regime(
        f"paced-{rate // 1000}k",
        ("pairs", "-batch", "0", "-rate", str(rate)),
        (
            _throughput(title, goal),
            Figure("one-way p50 there", "µs", _field("end", "p50_us"), goal=1.0),
            Figure("one-way p99 there", "µs", _field("end", "p99_us"), goal=1.1),
        ),
        delivered_per_second,
    )


def _per_connection(event: str) -> Callable[[Run], float]:
    return lambda run: _between(run, "empty", event)[1] / run[event].fields["connections"]


def _handshake(name: str, title: str, *args: str) -> Regime:
    return Regime(
        name,
        ("churn", *args),
        (
            Figure(
                title,
                "CPU-ms",
                lambda run: _between(run, "begin", "end")[0] * 1000 / run["end"].fields["handshakes"],
                goal=0.85,
            ),
        ),
        lambda run: run["end"].fields["handshakes"] / run["end"].fields["seconds"],
        counted=(("-count", 3000),),
    )


REGIMES = (
    _pairs("saturated-1200", "saturated by batching senders, 1,200 B", 2.2, "-size", "1200"),
    _pairs("saturated-100", "the same, 100 B", 1.6, "-size", "100"),
    _pairs("rotating", "the same, 1,200 B, each sender rotating over 20 receivers", 1.7, "-rotate"),
    _pairs("small-batches", "the same, 1,200 B, half the batch", None, "-batch", "16", "-window", "32"),
    _pairs(
        "stock", "saturated by the stock client (one write per packet), 32 under way", 1.0, "-batch", "0",
        "-window", "32",
    ),
    _pairs("stock-2", "the same, 2 under way", 1.0, "-batch", "0", "-window", "2"),
    _paced(2000, 1.5),
    _paced(10000, 1.2),
    Regime(
        "mixed",
        ("trace", "-pairs", "200", "-rate", "20000", "-batch", "0"),
        (
            _throughput("mixed sizes, modelled trace, 200 stock clients, 20,000 packets/s", 1.5),
            Figure("one-way p99 there", "µs", _field("end", "p99_us"), goal=1.1),
        ),
        delivered_per_second,
    ),
    Regime(
        "mixed-batched",
        ("trace", "-pairs", "200", "-rate", "60000"),
        (_throughput("the same trace, each burst in one write, 60,000 packets/s", 1.5),),
        delivered_per_second,
    ),
    Regime(
        "idle",
        ("idle",),
        (
            Figure("memory per idle TLS connection", "bytes", _per_connection("idle"), limit=22_000),
            Figure("the same after each moved 1 MB", "bytes", _per_connection("moved"), limit=22_000),
        ),
        lambda run: run["idle"].fields["connections"],
        counted=(("-count", 5000),),
    ),
    _handshake("handshake", "CPU per TLS handshake with DERP's own, the client's preferred key exchange"),
    _handshake("handshake-x25519", "the same, both held to X25519", "-curves", "x25519"),
    Regime(
        "churn",
        ("churn",),
        (
            Figure(
                "memory after 90,000 handshakes of churn",
                "MB",
                lambda run: run["settled"].usage.rss / MB,
                limit=60,
            ),
        ),
        lambda run: run["end"].fields["handshakes"] / run["end"].fields["seconds"],
        counted=(("-count", 90_000),),
    ),
    Regime(
        "stun",
        ("stun", "-pairs", "8"),
        (
            Figure(
                "STUN answers",
                "per CPU-second",
                lambda run: run["end"].fields["answers"] / _between(run, "begin", "end")[0],
                more_is_better=True,
                goal=0.95,
            ),
        ),
        lambda run: run["end"].fields["answers"] / run["end"].fields["seconds"],
    ),
    Regime(
        "fan-in",
        ("fanin", "-count", "64", "-rate", "2000", "-batch", "0"),
        (
            Figure(
                "64 senders to one stalled receiver: other pairs' p99",
                "µs",
                _field("stalled.end", "p99_us"),
                goal=1.0,
            ),
            Figure(
                "memory growth there",
                "MB",
                lambda run: _between(run, "calm.end", "stalled.end")[1] / MB,
                limit=2,
            ),
        ),
        lambda run: run["stalled.end"].fields["delivered"] / run["stalled.end"].fields["seconds"],
    ),
    _pairs(
        "workers-same",
        "two workers, each pair on one of them, 1,200 B",
        0.9,
        "-place",
        "same",
        sides=("relay", "two-workers"),
    ),
    _pairs(
        "workers-across",
        "two workers, each pair across both",
        0.6,
        "-place",
        "across",
        sides=("relay", "two-workers"),
    ),
)


def before(name: str) -> str:
    """Return the name of another checkout's server beside our server `name`."""
    return f"{name} before"


def beside_before(regime: Regime, share: float = 0.02) -> Regime:
    """Return `regime` between another checkout's relay and ours. A figure may lose `share`."""
    ours = regime.sides[1]
    goals = {True: 1 - share, False: 1 + share}  # by whether more is better
    figures = tuple(replace(f, goal=goals[f.more_is_better], limit=None) for f in regime.figures)
    return replace(regime, figures=figures, sides=(before(ours), ours))
