"""The relay's figures at one moment, as plain data.

For /metrics, /debug/ and between worker processes.

`Tally` is where the I/O layer counts by label. `snapshot` reads switch and tally, `merge` adds up
the workers' snapshots, `Rates` remembers a minute of totals.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from relay.core.counts import Counts, Labelled
from relay.core.reasons import Answer, Breach, Close, Refusal, WhyClosed, WhyRefused
from relay.core.switch import Switch

RTT_BUCKETS_MS: Final = (10, 20, 50, 100, 150, 250, 500)  # derper's
RTT_LABELS: Final = (*(f"{limit}ms" for limit in RTT_BUCKETS_MS), "inf", "non-tcp", "error")
RELOADED: Final = ("certificate", "limits")
TLS_VERSIONS: Final = ("1.2", "1.3")
# Of figures that workers see alike, one counts; where they differ, the worse one.
_HIGHEST: Final = frozenset(
    {
        "clients_remote",
        "average_queue_duration_ms",
        "rate_limit_per_client_bytes_per_second",
        "rate_limit_per_client_burst_bytes",
        "uptime_sec",
    }
)
_LOWEST: Final = frozenset({"front_ok", "certificate_not_after_unix_time", "process_start_unix_time"})


@dataclass
class Tally:
    """The I/O layer's counters by label. Those without labels are in `Switch.counts`.

    The fields' names are metrics.py's keys.
    """

    refusals: Labelled[WhyRefused] = field(default_factory=lambda: Labelled(Refusal, Breach, Answer))
    closes: Labelled[WhyClosed] = field(default_factory=lambda: Labelled(Close, Breach))
    tcp_rtt: Labelled[str] = field(default_factory=lambda: Labelled(RTT_LABELS))
    tls_request_version: Labelled[str] = field(default_factory=lambda: Labelled(TLS_VERSIONS))
    reloads: Labelled[str] = field(default_factory=lambda: Labelled(RELOADED))
    reload_failures: Labelled[str] = field(default_factory=lambda: Labelled(RELOADED))
    queue_average_ms: float = 0.0

    def labelled(self) -> dict[str, dict[str, int]]:
        """Return name -> label -> count, of the labels that were counted."""
        values = {name: value.by_label() for name, value in vars(self).items() if isinstance(value, Labelled)}
        return {name: counts for name, counts in values.items() if counts}

    def note_queue_time(self, waited_s: float) -> None:
        """Add a packet that left its queue, or was dropped from its head.

        The average moves as derper's.
        """
        self.queue_average_ms += 0.1 * (waited_s * 1000 - self.queue_average_ms)

    def note_rtt(self, rtt_us: int) -> None:
        """Count one connection's round trip time from tcpinfo.py.

        It is negative where there is none.
        """
        bucket = (
            "non-tcp"
            if rtt_us < 0
            else next((f"{limit}ms" for limit in RTT_BUCKETS_MS if rtt_us < limit * 1000), "inf")
        )
        self.tcp_rtt.add(bucket)


@dataclass(frozen=True)
class Stats:
    """One process at one moment, or several added up.

    Counters only grow; `gauges` go up and down.
    """

    counters: Counts = field(default_factory=Counts)
    labelled: dict[str, dict[str, int]] = field(default_factory=dict)
    dropped_packets: dict[str, int] = field(default_factory=dict)  # "reason/kind"
    dropped_bytes: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # what the consistency check found
    workers: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Stats:
        """Return the stats that `to_json` made the document of."""
        return cls(**{**document, "counters": Counts(**document["counters"])})


def snapshot(
    switch: Switch,
    tally: Tally,
    gauges: Mapping[str, float],
    problems: list[str],
    labelled: Mapping[str, dict[str, int]] | None = None,
) -> Stats:
    """Return the figures of now.

    `gauges` and `labelled` are the caller's own (file descriptors, STUN requests…). `problems` are
    those of its last consistency check.
    """
    totals = switch.totals()
    disco = totals.packets_received_disco
    kinds = {"disco": disco, "other": totals.packets_received - disco}
    return Stats(
        counters=totals,
        labelled={"packets_received_kind": kinds, **tally.labelled(), **(labelled or {})},
        dropped_packets={f"{reason}/{kind}": cell[0] for (reason, kind), cell in switch.drops.items()},
        dropped_bytes={f"{reason}/{kind}": cell[1] for (reason, kind), cell in switch.drops.items()},
        gauges={**_gauges(switch), "average_queue_duration_ms": tally.queue_average_ms, **gauges},
        problems=problems,
    )


def _gauges(switch: Switch) -> dict[str, float]:
    sessions = switch.sessions
    peers = switch.peers.values()
    # A key counts where its active connection is, so that the workers' sums are right.
    active = [peer.active for peer in peers if peer.active is not None and not peer.active.sibling]
    # Another worker's clients are this relay's, not a remote one's.
    remote = sum(not peer.sessions and not peer.siblings for peer in peers)
    return {
        "current_connections": sum(not session.sibling for session in sessions),
        "current_home_connections": sum(session.home for session in sessions),
        "current_notideal_connections": sum(session.not_ideal for session in sessions),
        "clients_local": len(active),
        "clients_remote": remote,
        "watchers": len(switch.watchers),
        "current_dup_client_keys": sum(session.rivals for session in active),
        "current_dup_client_conns": sum(session.rivals for session in sessions),
        "mesh_links": sum(not link.sibling for link in switch.mesh_links),
        "packets_waiting": sum(session.outbox.waiting for session in sessions),
    }


def merge(parts: Iterable[Stats]) -> Stats:
    """Return several workers' figures as those of one relay."""
    counters = Counts()
    labelled: dict[str, Counter[str]] = {}
    packets: Counter[str] = Counter()
    octets: Counter[str] = Counter()
    gauges: dict[str, float] = {}
    problems: list[str] = []
    workers = 0
    for part in parts:
        counters.add(part.counters)
        packets.update(part.dropped_packets)
        octets.update(part.dropped_bytes)
        for name, by_label in part.labelled.items():
            labelled.setdefault(name, Counter()).update(by_label)
        for name, value in part.gauges.items():
            pick = max if name in _HIGHEST else min if name in _LOWEST else None
            gauges[name] = pick(gauges.get(name, value), value) if pick else gauges.get(name, 0) + value
        problems += part.problems
        workers += part.workers
    by_name = {name: dict(counts) for name, counts in labelled.items()}
    return Stats(counters, by_name, dict(packets), dict(octets), gauges, problems, workers)


class Rates:
    """The totals of the last minute. `note` them every few seconds, and ask how fast they grow."""

    KEPT_S: Final = 65.0

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Counts]] = deque()

    def note(self, now: float, totals: Counts) -> None:
        self._samples.append((now, totals))
        while now - self._samples[0][0] > self.KEPT_S:
            self._samples.popleft()

    def per_second(self, counter: Callable[[Counts], int], over_s: float) -> float:
        """Return how fast a counter grew, per second, over about the last `over_s` seconds.

        Return 0 while there are not two samples.
        """
        if len(self._samples) < 2:
            return 0.0
        last_at, last = self._samples[-1]
        since, then = next(
            sample for sample in self._samples if last_at - sample[0] <= over_s or sample is self._samples[-2]
        )
        return (counter(last) - counter(then)) / (last_at - since) if last_at > since else 0.0
