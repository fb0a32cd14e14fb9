"""The `/debug/` pages and `/metrics`: what the relay does right now, for whoever runs it. No I/O; reads the switch.

Only for peers on loopback whose request no proxy passed on, or on the address that `-metrics-listen` names: node keys and
addresses are in there. Same paths as derper where it has them; `traffic` looks at one peer, or at the busiest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qs

from relay import __version__
from relay.debug_clients import describe, list_clients, parse_query
from relay.debug_html import clients_index_page, clients_page, index_page, traffic_page
from relay.goflag import format_duration
from relay.handshake import format_key
from relay.http import BROWSER_HEADERS, HTML, TEXT, Headers, Page, Request, Response, error
from relay.keyfile import parse_hex_key
from relay.metrics import CONTENT_TYPE, make_registry, render
from relay.proxyproto import TrustedProxies
from relay.stats import Rates, Stats
from relay.switch import Peer, Switch

JSON: Final = ("Content-Type", "application/json")
LISTED: Final = 100  # peers, or connections, in one traffic page
_HEADERS: Final[Headers] = tuple(
    (name, value + "; style-src 'self' 'unsafe-inline'" if name == "Content-Security-Policy" else value) for name, value in BROWSER_HEADERS
)


@dataclass
class Inside:
    """What the pages look at. `offset_s` turns the switch's clock into Unix time; `about` is shown as it is."""

    switch: Switch
    read_stats: Callable[[], Stats]  # of all workers
    rates: Rates
    offset_s: float
    about: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.started_s = self.switch.clock()


def may_debug(request: Request) -> bool:
    """Whether the peer itself is on loopback: what a proxy passed on is a stranger's, whoever the proxy is."""
    if request.header(b"x-forwarded-for") or request.header(b"forwarded"):
        return False
    try:
        peer = ip_address(request.peer.partition("%")[0])
    except ValueError:
        return False
    return (getattr(peer, "ipv4_mapped", None) or peer).is_loopback


def make_pages(inside: Inside, *, anyone: bool = False, proxies: TrustedProxies | None = None) -> dict[str, Page]:
    """Path to page, for `http.Site`. `anyone`: the listener's address is the permission, who reaches it may look.

    Whatever `proxies` send is refused, on loopback as well: they may forget to say for whom they ask.
    """
    registry = make_registry(inside.read_stats)
    traffic = _Traffic(inside)

    def metrics(_request: Request) -> Response:
        return Response(200, render(registry.collect()), (("Content-Type", CONTENT_TYPE),))

    pages: dict[str, Page] = {
        "/metrics": metrics,
        "/debug/": lambda request: _index(request, inside),
        "/debug/varz": metrics,
        "/debug/vars": lambda _: _json_response(inside.read_stats().to_json()),
        "/debug/check": lambda _: _check(inside.switch),
        "/debug/clients/": lambda request: _clients(request, inside),
        "/debug/clients": lambda _: Response(302, b"", (("Location", "/debug/clients/"),)),
        "/debug/traffic": traffic.answer,
    }
    return pages if anyone else {path: _guarded(page, proxies or TrustedProxies([])) for path, page in pages.items()}


def _guarded(page: Page, proxies: TrustedProxies) -> Page:
    def guarded(request: Request) -> Response:
        allowed = may_debug(request) and not proxies.trusts(request.peer)
        return page(request) if allowed else error(403, "debug access denied")

    return guarded


def _html_response(text: str) -> Response:
    return Response(200, text.encode(), (*_HEADERS, HTML))


def _json_response(document: Any) -> Response:
    return Response(200, json.dumps(document, indent="\t").encode() + b"\n", (*_HEADERS, JSON))


def _index(request: Request, inside: Inside) -> Response:
    if request.path != "/debug/":
        return error(404, "no such debug page")
    stats = inside.read_stats()
    uptime_s = inside.switch.clock() - inside.started_s
    about = {"version": __version__, "uptime": format_duration(round(uptime_s)), **inside.about}
    return _html_response(index_page(about, stats, inside.rates, [link.name for link in inside.switch.links if not link.sibling]))


def _check(switch: Switch) -> Response:
    problems = switch.consistency_check()
    if problems:
        return Response(500, ("\n".join(problems) + "\n").encode(), (*_HEADERS, TEXT))
    return Response(200, b"derp.Server ConsistencyCheck okay", (*_HEADERS, TEXT))


def _clients(request: Request, inside: Inside) -> Response:
    clock_s = inside.switch.clock()
    try:
        query = parse_query(request.query, clock_s + inside.offset_s)
    except ValueError as e:
        return error(400, str(e))
    if query is None:
        counts = {"conns": len(inside.switch.sessions), "keys": len({session.key for session in inside.switch.sessions})}
        wants_json = parse_qs(request.query).get("format") == ["json"]
        return _json_response(counts) if wants_json else _html_response(clients_index_page(**counts))
    listing = list_clients(query, inside.switch.sessions, clock_s, inside.offset_s)
    return _json_response(listing.to_json(query)) if query.json else _html_response(clients_page(query, listing))


class _Traffic:
    """`/debug/traffic`: what moved since the page was last looked at; with `?key=` everything about one peer."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._last: dict[int, tuple[int, int]] = {}  # connection's number -> bytes from it, bytes to it
        self._last_at = inside.switch.clock()

    def answer(self, request: Request) -> Response:
        fields = parse_qs(request.query)
        wants_json = fields.get("format") == ["json"]
        key = fields.get("key", [""])[0]
        try:
            document = self._peer(parse_hex_key(key.removeprefix("nodekey:"))) if key else self._busiest()
        except ValueError as e:
            return error(400, f"bad key: {e}")
        return _json_response(document) if wants_json else _html_response(traffic_page(document))

    def _moved(self) -> tuple[dict[int, tuple[int, int]], float]:
        """Bytes from and to each connection since the last look, and how long ago that was."""
        now = self._inside.switch.clock()
        totals = {session.serial: (session.rx_bytes, session.outbox.payload_octets) for session in self._inside.switch.sessions}
        before, since = self._last, now - self._last_at
        self._last, self._last_at = totals, now
        return {n: (rx - before.get(n, (0, 0))[0], tx - before.get(n, (0, 0))[1]) for n, (rx, tx) in totals.items()}, since

    def _busiest(self) -> dict[str, Any]:
        moved, since_s = self._moved()
        by_serial = {session.serial: session for session in self._inside.switch.sessions}
        busy = sorted((n for n, both in moved.items() if any(both)), key=lambda n: (-sum(moved[n]), n))
        rows = [
            {"Key": format_key(by_serial[n].key), "Recv": moved[n][0], "Sent": moved[n][1], "UniqueSenders": len(by_serial[n].heard or ())}
            for n in busy[:LISTED]
        ]
        return {"since_s": round(since_s, 3), "connections": len(busy), "busiest": rows}

    def _peer(self, key: bytes) -> dict[str, Any]:
        moved, since_s = self._moved()
        switch = self._inside.switch
        peer = switch.peers.get(key) or Peer(key)
        heard = {source for session in peer.sessions for source in session.heard or ()}
        told = {session.key for session in switch.receivers.get(key, ())}
        return {
            "key": format_key(key),
            "known": bool(peer.sessions or peer.links),
            "since_s": round(since_s, 3),
            "received_bytes": sum(moved[session.serial][0] for session in peer.sessions),
            "sent_bytes": sum(moved[session.serial][1] for session in peer.sessions),
            "waiting": sum(session.outbox.waiting for session in peer.sessions),
            "dropped": peer.dropped,
            "links": [link.name for link in peer.links],
            "heard_from": _keys(heard),
            "sent_to": _keys(told),
            "connections": [describe(session, self._inside.offset_s, switch.clock()) for session in reversed(peer.sessions)],
        }


def _keys(keys: Iterable[bytes]) -> list[str]:
    return [format_key(key) for key in sorted(keys)[:LISTED]]
