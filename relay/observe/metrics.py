"""`/metrics`: a prometheus-client collector that reads `Stats` when it is scraped.

The names are derper's where they exist. The text is written here and not by the library, which
would rename every counter to `…_total`: dashboards made for derper would find nothing. The
library's own process metrics (`process_*`) are part of the answer. It is imported at the first
scrape, because it costs a fifth of the relay's start-up time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from relay import __release__, __version__
from relay.core.counts import DISPOSITIONS, Counts
from relay.core.stats import RELOADED, RTT_LABELS, Stats

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE: Final = "text/plain;version=0.0.4;charset=utf-8"

# Name in Stats.counters -> (metric, help).
COUNTERS: Final[dict[str, tuple[str, str]]] = {
    each.name: (each.metadata["metric"].format(each.name), each.metadata["help"])
    for each in fields(Counts)
    if each.metadata["metric"]
}
# Name in Stats.labelled -> (metric, label, type, help, label values that are there from the start).
# core/reasons.py says what each reason means.
LABELLED: Final[dict[str, tuple[str, str, str, str, tuple[str, ...]]]] = {
    "packets_received_kind": (
        "derp_packets_received_kind", "kind", "counter", "Packets from clients by kind", ("disco", "other"),
    ),
    "tcp_rtt": ("derp_tcp_rtt", "le", "counter", "Round trip times by bucket, not cumulative", RTT_LABELS),
    "stun_requests": ("stun_requests", "disposition", "counter", "STUN requests", DISPOSITIONS),
    "stun_addrfamily": (
        "stun_addrfamily", "family", "counter", "STUN requests by address family", ("ipv4", "ipv6"),
    ),
    "tls_request_version": (
        "derper_tls_request_version", "version", "counter", "HTTP requests by TLS version", (),
    ),
    "tls_active_version": ("derper_tls_active_version", "version", "gauge", "Connections by TLS version", ()),
    "refusals": ("relay_refusals", "reason", "counter", "Connections refused before they were clients", ()),
    "admissions": (
        "relay_admissions", "reason", "counter", "Answers to the question whether a client may come in", (),
    ),
    "reloads": ("relay_reloads", "part", "counter", "Reloads of the certificate and of limits", RELOADED),
    "reload_failures": (
        "relay_reload_failures", "part", "counter", "Reloads that failed; the old one stays in force",
        RELOADED,
    ),
    "closes": ("relay_closes", "reason", "counter", "Client connections ended", ()),
}  # fmt: skip
# Metric -> help.
_GAUGES: Final = {
    "derp_current_connections": "DERP connections",
    "derp_current_home_connections": "Connections of clients whose home this is",
    "derp_current_notideal_connections": "Connections of clients that would rather be elsewhere",
    "derp_clients_local": "Keys connected here",
    "derp_clients_remote": "Keys known only through mesh links",
    "derp_watchers": "Mesh peers that watch",
    "derp_current_dup_client_keys": "Keys with several connections",
    "derp_current_dup_client_conns": "Connections of such keys",
    "derp_average_queue_duration_ms": "Moving average of the time in queues",
    "derp_current_file_descriptors": "Open file descriptors",
    "derp_rate_limit_per_client_bytes_per_second": "The rate limit of each client",
    "derp_rate_limit_per_client_burst_bytes": "Its burst",
    "process_start_unix_time": "When the relay started",
    # Ours.
    "relay_mesh_links": "Mesh links that are up",
    "relay_packets_waiting": "Packets in clients' queues",
    "relay_handshakes": "Handshakes under way",
    "relay_front_ok": "Whether the relay's own front answers; STUN is silent while it does not",
    "relay_certificate_not_after_unix_time": "When the served certificate ends",
}
# Name in Stats.gauges -> (metric, help). A metric is its name with a prefix, if any.
GAUGES: Final = {
    metric.removeprefix("derp_").removeprefix("relay_"): (metric, text) for metric, text in _GAUGES.items()
}


@dataclass(frozen=True)
class Series:
    """One metric. Samples are (labels, value)."""

    name: str
    kind: str
    help: str
    samples: list[tuple[dict[str, str], float]]


def series_of(stats: Stats) -> Iterator[Series]:
    """Yield every metric of the relay.

    Labelled figures and gauges that the tables lack are left out.
    """
    yield Series(
        "version",
        "gauge",
        "The relay's version",
        [({"version": __version__, "binary": "derpfleet-relay"}, 1)],
    )
    if __release__:
        yield Series("relay_release", "gauge", "The release that runs", [({"id": __release__}, 1)])
    yield Series("relay_workers", "gauge", "Worker processes", [({}, stats.workers)])
    yield Series(
        "relay_consistent", "gauge", "Whether the consistency check finds nothing", [({}, not stats.problems)]
    )
    for name, (metric, text) in COUNTERS.items():
        yield Series(metric, "counter", text, [({}, getattr(stats.counters, name))])
    for name, (metric, text) in GAUGES.items():
        if name in stats.gauges:
            yield Series(metric, "gauge", text, [({}, stats.gauges[name])])
    yield Series(
        "uptime_sec", "counter", "Seconds since the relay started", [({}, stats.gauges.get("uptime_sec", 0))]
    )
    total = stats.gauges.get("clients_local", 0) + stats.gauges.get("clients_remote", 0)
    yield Series("derp_clients_total", "gauge", "Keys known in the region", [({}, total)])
    for name, (metric, label, kind, text, always) in LABELLED.items():
        counts = dict.fromkeys(always, 0) | stats.labelled.get(name, {})
        yield Series(metric, kind, text, [({label: value}, count) for value, count in sorted(counts.items())])
    for metric, drops, text in (
        ("derp_packets_dropped", stats.dropped_packets, "Packets dropped"),
        ("derp_bytes_dropped", stats.dropped_bytes, "Payload bytes dropped"),
    ):
        pairs = ((key.partition("/"), count) for key, count in sorted(drops.items()))
        yield Series(
            metric,
            "counter",
            text,
            [({"reason": reason, "kind": kind}, count) for (reason, _, kind), count in pairs],
        )


class RelayCollector:
    """A collector for a prometheus-client registry. `read` returns the stats of the moment."""

    def __init__(self, read: Callable[[], Stats]) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not read the relay."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, once per scrape."""
        from prometheus_client.metrics_core import Metric  # noqa: PLC0415  see the module's head

        for series in series_of(self._read()):
            metric = Metric(series.name, series.help, series.kind)
            for labels, value in series.samples:
                metric.add_sample(series.name, labels, value)
            yield metric


def make_registry(read: Callable[[], Stats]) -> CollectorRegistry:
    """Return a registry of the relay's metrics and those of its process."""
    from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415

    registry = CollectorRegistry()
    registry.register(RelayCollector(read))
    ProcessCollector(registry=registry)
    return registry


def render(metrics: Iterable[Metric]) -> bytes:
    """Return Prometheus' text format, version 0.0.4, with every sample under its own name."""
    lines: list[str] = []
    for metric in metrics:
        # The library's own counters are named without the suffix that their samples have.
        name = metric.name
        if metric.samples and all(sample.name == f"{name}_total" for sample in metric.samples):
            name += "_total"
        lines.append(f"# HELP {name} {_escape(metric.documentation)}")
        lines.append(f"# TYPE {name} {metric.type}")
        for sample in metric.samples:
            labels = ",".join(
                f'{key}="{_escape(value, quotes=True)}"' for key, value in sample.labels.items()
            )
            lines.append(f"{sample.name}{'{' + labels + '}' if labels else ''} {_number(sample.value)}")
    return ("\n".join(lines) + "\n").encode()


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if math.isfinite(value) and value == int(value):
        return str(int(value))
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(str(value), repr(float(value)))
