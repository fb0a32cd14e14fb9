"""`/debug/traffic`: the bytes since the last look, of the busiest connections or of one peer.

Every viewer compares with its own last look. Viewers are the page, which is shared by all who load
it, and each stream. One worker's part is plain data, and `join_traffic` adds them up. Nothing is
counted for this: it reads what sessions count anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from relay.core.handshake import format_key
from relay.core.peer import Peer
from relay.core.switch import Switch
from relay.observe.clients import describe

LISTED: Final = 100  # peers, or connections, in one page or one round of a stream
PAGE: Final = ""  # the viewer that is the page
FORGET_S: Final = 60.0  # a viewer that does not come back
Totals = dict[int, tuple[int, int]]  # connection's number -> bytes from it, bytes to it


class Traffic:
    """One worker's part. `offset_s` turns the switch's clock into Unix time."""

    def __init__(self, switch: Switch, offset_s: float) -> None:
        self._switch = switch
        self._offset_s = offset_s
        # Of each viewer.
        self._looks: dict[str, tuple[float, Totals]] = {PAGE: (switch.clock(), {})}

    def busiest(self, viewer: str) -> dict[str, Any]:
        """Return the connections that moved bytes, most first, under derper's names."""
        moved, since_s = self._moved(viewer)
        by_serial = {session.serial: session for session in self._switch.sessions}
        busy = sorted((n for n, both in moved.items() if any(both)), key=lambda n: (-sum(moved[n]), n))
        rows = [
            row(format_key(by_serial[n].key), *moved[n], len(by_serial[n].heard or ())) for n in busy[:LISTED]
        ]
        return {"since_s": round(since_s, 3), "connections": len(busy), "busiest": rows}

    def peer(self, viewer: str, key: bytes) -> dict[str, Any]:
        """Return everything about one key."""
        moved, since_s = self._moved(viewer)
        peer = self._switch.peers.get(key) or Peer(key)
        heard = {source for session in peer.sessions for source in session.heard or ()}
        receivers = {session.key for session in self._switch.receivers.get(key, ()) if not session.sibling}
        clock_s = self._switch.clock()
        return {
            "key": format_key(key),
            "known": bool(peer.sessions or peer.links),
            "since_s": round(since_s, 3),
            "received_bytes": sum(moved[session.serial][0] for session in peer.sessions),
            "sent_bytes": sum(moved[session.serial][1] for session in peer.sessions),
            "waiting": sum(session.outbox.waiting for session in peer.sessions),
            "dropped": peer.dropped,
            "links": [link.name for link in peer.links if not link.sibling],
            "heard_from": _keys(heard),
            "sent_to": _keys(receivers),
            "connections": [
                describe(session, self._offset_s, clock_s) for session in reversed(peer.sessions)
            ],
        }

    def _moved(self, viewer: str) -> tuple[Totals, float]:
        """Return the bytes from and to each connection since this viewer's last look.

        The second value is that look's age in seconds.
        """
        now = self._switch.clock()
        totals = {
            session.serial: (session.rx_bytes, session.outbox.payload_octets)
            for session in self._switch.sessions
            if not session.sibling
        }
        at, before = self._looks.get(viewer, (now, totals))
        self._looks = {
            name: look for name, look in self._looks.items() if name == PAGE or now - look[0] < FORGET_S
        }
        self._looks[viewer] = now, totals
        return {
            n: (rx - before.get(n, (0, 0))[0], tx - before.get(n, (0, 0))[1])
            for n, (rx, tx) in totals.items()
        }, now - at


def row(key: str, received: int, sent: int, senders: int) -> dict[str, Any]:
    """Return derper's row of a connection.

    It has the bytes from it and to it, and how many keys it got packets from.
    """
    return {"Key": key, "Recv": received, "Sent": sent, "UniqueSenders": senders}


def join_traffic(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return all workers' parts as one, of the same kind."""
    joined = dict(parts[0])
    for name, join in _JOINS.items():
        if name in joined:
            joined[name] = join([part[name] for part in parts])
    return joined


def _join_rows(parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return sorted((row for part in parts for row in part), key=lambda row: -int(row["Recv"] + row["Sent"]))[
        :LISTED
    ]


def _join_lists(parts: list[Any]) -> Any:
    return [item for part in parts for item in part] if isinstance(parts[0], list) else sum(parts)


def _join_names(parts: list[list[str]]) -> list[str]:
    return sorted({name for part in parts for name in part})[:LISTED]


_JOINS: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "since_s": max,
    "busiest": _join_rows,
    "known": any,
    **dict.fromkeys(("received_bytes", "sent_bytes", "waiting", "dropped"), sum),
    **dict.fromkeys(("links", "heard_from", "sent_to"), _join_names),
    "connections": _join_lists,  # how many were busy, or which ones one peer has
}


def _keys(keys: Iterable[bytes]) -> list[str]:
    return [format_key(key) for key in sorted(keys)[:LISTED]]
