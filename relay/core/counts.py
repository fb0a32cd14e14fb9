"""The counters, as closed sets: another name raises, and mypy refuses it before. No I/O.

`Counts` has the counters without labels, each with its metric and the metric's help;
observe/metrics.py is made of them. `Labelled` counts the members of closed sets. Counters are
attributes, because a `collections.Counter` costs 0.2 µs for each count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Generic, TypeVar


def _counter(help: str, *, metric: str = "derp_{}") -> Any:
    """Return a counter that starts at 0.

    `{}` in `metric` is the counter's own name. An empty `metric` makes none.
    """
    return field(default=0, metadata={"metric": metric, "help": help})


_prefixed = partial(_counter, metric="{}")  # the name has its prefix already
_ours = partial(_counter, metric="relay_{}")  # derper has none of these


@dataclass(slots=True)
class Counts:
    """Every counter without labels. Those before `writes` are derper's."""

    accepts: int = _counter("Connections that entered the DERP handshake")
    bytes_received: int = _counter("Payload bytes of packets from clients")
    bytes_sent: int = _counter("Payload bytes of packets to clients")
    packets_received: int = _counter("Packets from clients")
    packets_received_disco: int = _counter(
        "Of these, disco; a label of derp_packets_received_kind", metric=""
    )
    packets_sent: int = _counter("Packets to clients")
    packets_forwarded_in: int = _counter("Packets from other relays")
    packets_forwarded_out: int = _counter("Packets to other relays")
    total_dup_client_conns: int = _counter("Connections of keys that were connected already")
    peer_gone_disconnected_frames: int = _counter("Peer-gone frames: disconnected")
    peer_gone_not_here_frames: int = _counter("Peer-gone frames: not here")
    home_moves_in: int = _counter("Clients that made this relay their home")
    home_moves_out: int = _counter("Clients that moved their home away")
    got_ping: int = _counter("Pings from clients")
    sent_pong: int = _counter("Pongs to clients")
    unknown_frames: int = _counter("Frames of unknown type, skipped")
    multiforwarder_created: int = _counter("Keys that a second mesh link announced")
    multiforwarder_deleted: int = _counter("Keys that went back to one mesh link")
    packet_forwarder_delete_other_value: int = _counter("Withdrawals by links that had not announced")
    sclient_write_timeouts: int = _counter("Connections ended because they took no bytes")
    websocket_accepts: int = _counter("WebSocket connections")
    rate_limit_per_client_waited: int = _counter("Times that a client's reader was made to wait")
    tls_listener_accepted_connections: int = _prefixed("TCP connections accepted")
    tls_listener_rejected_connections: int = _prefixed("TCP connections beyond the accept limit")
    bootstrap_dns_requests: int = _prefixed("Requests for /bootstrap-dns")
    bootstrap_dns_published_hits: int = _prefixed("Of these, for a published name that is known")
    bootstrap_dns_published_misses: int = _prefixed("For a published name that did not resolve yet")
    bootstrap_dns_unpublished_hits: int = _prefixed("For an unpublished name")
    bootstrap_dns_unpublished_misses: int = _prefixed("For a name that is not here")
    writes: int = _ours("Writes to clients; packets per write is how much is joined")
    packets_from_workers: int = _ours("Packets from other workers of this relay")
    packets_to_workers: int = _ours("Packets to other workers of this relay")
    stun_silenced: int = _ours("STUN requests left unanswered because the relay's front does not work")

    def add(self, other: Counts) -> None:
        """Add another process's counters to these."""
        for name in COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


COUNTERS = tuple(each.name for each in fields(Counts))


@dataclass(slots=True)
class StunCounts:
    """STUN datagrams by disposition, derper's names."""

    success: int = 0
    not_stun: int = 0
    read_error: int = 0
    write_error: int = 0


DISPOSITIONS = tuple(each.name for each in fields(StunCounts))
L = TypeVar("L", bound=str)


class Labelled(Generic[L]):
    """The counts of the labels of some closed sets."""

    __slots__ = ("_allowed", "_times")

    def __init__(self, *sets: Iterable[L]) -> None:
        self._allowed = frozenset(label for labels in sets for label in labels)
        self._times: Counter[tuple[L, int]] = Counter()

    def add(self, label: L, code: int = 0) -> None:
        """Count one more. `code` is a number that the label ends with, such as a close code.

        Raises KeyError for a label of no set.
        """
        if label not in self._allowed:
            raise KeyError(label)
        self._times[label, code] += 1

    def by_label(self) -> dict[str, int]:
        """Return the counts of the labels that were counted."""
        return {
            f"{label}_{code}" if code else str(label): times for (label, code), times in self._times.items()
        }
