"""`/debug/clients/`: the connected clients, as derper 1.104 shows them.

It has its filters, orders and pages, in HTML, or in JSON with its field names:

    ?all                  every connection
    ?ip=1.2.3.4  ?cidr=1.2.0.0/16  ?key=nodekey:…   some of them
    ?app=NAME             of those, the ones with this app name; may be repeated, "" is no name
    ?sort=key             key, ip, conn, connected, rx, tx, rxpkts, txpkts; a leading - reverses it
    ?limit=100            connections per page, 1,000 at most
    ?after=X&afterconn=N  where the page begins: behind this value of the order's field
                          (the link to the next page has both)
    ?format=json

Pages begin behind a value and not at a number, so that connections that come and go in between
shift nothing. `find_clients` returns each worker's part, and `join_clients` makes one page of them.
Pure: reads sessions, makes dicts and text.

Source: derp/derpserver/debugclients.go.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from relay.core.handshake import format_key, parse_hex_key
from relay.core.peer import Member
from relay.golang.flag import parse_duration, quote

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
_NS: Final = 1_000_000_000

Value = Any  # bytes, int or a tuple of these, which an order compares


def _address_order(address: IPv4Address | IPv6Address | None, port: int) -> tuple[int, int, int]:
    return (address.version, int(address), port) if address else (0, 0, 0)


_COUNTERS: Final[dict[str, Callable[[Member], int]]] = {
    "rx": lambda s: s.rx_bytes,
    "tx": lambda s: s.outbox.payload_octets,
    "rxpkts": lambda s: s.rx_packets,
    "txpkts": lambda s: s.outbox.packets,
}
SORTS: Final = ("key", "ip", "conn", "connected", *_COUNTERS)


@dataclass(frozen=True)
class Query:
    """A parsed request. `after` is compared with the order's value for a session."""

    network: IPv4Network | IPv6Network | None = None
    key: bytes = b""
    apps: tuple[str, ...] | None = None
    sort: str = "key"
    descending: bool = False
    limit: int = DEFAULT_LIMIT
    json: bool = False
    after: Value = None
    after_conn: int | None = None

    def __str__(self) -> str:
        """Describe the list in words."""
        if self.key:
            text = f"connections for {format_key(self.key)}"
        elif self.network:
            single = self.network.prefixlen == self.network.max_prefixlen
            text = f"clients from {self.network.network_address if single else self.network}"
        else:
            text = "all clients"
        return (
            text
            if self.apps is None
            else f"{text} with app {' or '.join(app or '(none)' for app in self.apps)}"
        )

    def matches(self, session: Member) -> bool:
        if self.key and session.key != self.key:
            return False
        if self.network and (session.address is None or _unmapped(session.address) not in self.network):
            return False
        return self.apps is None or session.info.app_name in self.apps

    def link(self, sort: str, after: str = "", after_conn: str = "") -> str:
        """Return the relative URL of the same list in another order, or from another place on."""
        pairs = (
            [("key", format_key(self.key))]
            if self.key
            else [("cidr", str(self.network))]
            if self.network
            else [("all", "1")]
        )
        pairs += [("app", app) for app in self.apps or ()]
        pairs += [("sort", sort)]
        pairs += [(name, value) for name, value in (("after", after), ("afterconn", after_conn)) if value]
        pairs += [("limit", str(self.limit))] if self.limit != DEFAULT_LIMIT else []
        pairs += [("format", "json")] if self.json else []
        return "?" + urlencode(pairs)


def parse_query(text: str, now_unix_s: float) -> Query | None:
    """Parse a URL's query. Return None when it has no filter, which is the index page.

    Raises ValueError with derper's words.
    """
    fields = parse_qs(text, keep_blank_values=True, max_num_fields=50)
    one = {name: values[0] for name, values in fields.items()}
    form = one.get("format", "")
    if form not in ("", "json", "html"):
        raise ValueError(f"bad format {quote(form)}; want json or html")
    apps = tuple(fields["app"]) if "app" in fields else None
    filters = [
        name for name in ("all", "ip", "cidr", "key") if name in fields and (name == "all" or one[name])
    ]
    if len(filters) > 1:
        raise ValueError("only one of all, ip, cidr, or key may be given")
    if not filters and apps is None:
        return None
    sort = one.get("sort") or "key"
    descending, sort = sort.startswith("-"), sort.removeprefix("-")
    if sort not in SORTS:
        raise ValueError(
            f"bad sort {quote(one['sort'])}; want key, ip, conn, connected, rx, tx, rxpkts, or txpkts, "
            "optionally with a leading -"
        )
    after = _parse_after(sort, descending, one["after"], now_unix_s) if one.get("after") else None
    after_conn = (
        _parse_number("afterconn", one["afterconn"])
        if after is not None and sort != "conn" and one.get("afterconn")
        else None
    )
    return Query(
        network=_parse_network(filters[0], one[filters[0]])
        if filters and filters[0] in ("ip", "cidr")
        else None,
        key=_parse_key("key", one["key"]) if filters == ["key"] else b"",
        apps=apps,
        sort=sort,
        descending=descending,
        limit=_parse_limit(one["limit"]) if one.get("limit") else DEFAULT_LIMIT,
        json=form == "json",
        after=after,
        after_conn=after_conn,
    )


def _parse_network(name: str, text: str) -> IPv4Network | IPv6Network:
    try:
        if name == "ip":
            return ip_network(_unmapped(ip_address(text)))
        if "/" not in text:
            raise ValueError
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"bad {name} {quote(text)}") from None


def _parse_key(name: str, text: str) -> bytes:
    try:
        return parse_hex_key(text.removeprefix("nodekey:"))
    except ValueError as e:
        raise ValueError(f"bad {name} {quote(text)}: {e}") from None


def _parse_number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 20:
        raise ValueError(f"bad {name} {quote(text)}")
    return int(text)


def _parse_limit(text: str) -> int:
    limit = _parse_number("limit", text)
    if limit < 1:
        raise ValueError(f"bad limit {quote(text)}")
    return min(limit, MAX_LIMIT)


def _parse_after(sort: str, descending: bool, text: str, now_unix_s: float) -> Value:
    """Return where a page begins, as the order compares it."""
    if sort == "key":
        return _parse_key("after", text)
    if sort == "ip":
        return _parse_after_address(descending, text)
    if sort == "connected" and not text.isdecimal():
        try:  # "30m": those that have been connected for that long
            return round((now_unix_s - parse_duration(text)) * _NS)
        except ValueError:
            raise ValueError(
                f"bad after {quote(text)} for sort by connected; want Unix nanoseconds or a duration"
            ) from None
    return _parse_number("after", text)


def _parse_after_address(descending: bool, text: str) -> Value:
    """Parse `ip:port`, or an address alone, which means behind all of its ports."""
    try:
        return _address_order(ip_address(text), 0 if descending else 65535)
    except ValueError:
        host, _, port = text.rpartition(":")
    try:
        return _address_order(ip_address(host.strip("[]")), _parse_number("port", port))
    except ValueError:
        raise ValueError(f"bad after {quote(text)} for sort by ip") from None


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


@dataclass(frozen=True)
class Listing:
    """One page of connections, in derper's JSON form, with how many there are in all."""

    clients: list[dict[str, Any]]
    connections: int
    keys: int
    remaining: int
    next: str

    def to_json(self, query: Query) -> dict[str, Any]:
        document = {
            "query": str(query),
            "conns": self.connections,
            "keys": self.keys,
            "remaining": self.remaining,
        }
        return {**document, **({"next": self.next} if self.next else {}), "clients": self.clients}


def find_clients(
    query: Query,
    sessions: Iterable[Member],
    clock_s: float,
    offset_s: float,
) -> dict[str, Any]:
    """Return one worker's part of the page that a query asks for, as JSON has it.

    `clock_s` is the sessions' clock now; with `offset_s`, which must not change, it is Unix time.
    Keys with other connections, perhaps to another worker, are named, so that they are not counted
    twice.
    """
    order_of = _order(query.sort, offset_s)
    matching = [session for session in sessions if query.matches(session)]
    entries = [(order_of(session), session.serial, session) for session in matching]
    ahead = [entry for entry in entries if _is_past(query, entry)]
    page = _select(query, ahead)
    return {
        "connections": len(matching),
        "keys": len({session.key for session in matching}),
        "shared": sorted({format_key(session.key) for session in matching if session.rivals}),
        "ahead": len(ahead),
        "page": [
            [_plain(value), serial, describe(session, offset_s, clock_s)] for value, serial, session in page
        ],
    }


def join_clients(query: Query, parts: Sequence[Mapping[str, Any]]) -> Listing:
    """Return the page of all workers together."""
    page = _select(query, [entry for part in parts for entry in part["page"]])
    remaining = sum(part["ahead"] for part in parts) - len(page)
    named = [key for part in parts for key in part["shared"]]
    keys = sum(part["keys"] for part in parts) - len(named) + len(set(named))
    following = _next_link(query, page[-1]) if page and remaining else ""
    return Listing(
        [client for _, _, client in page],
        sum(part["connections"] for part in parts),
        keys,
        remaining,
        following,
    )


def _select(query: Query, entries: list[Any]) -> list[Any]:
    """Return the first of the (value, serial number, …) in the query's order."""
    select = heapq.nlargest if query.descending else heapq.nsmallest
    return select(query.limit, entries, key=lambda entry: (entry[0], entry[1]))


def _plain(value: Value) -> Value:
    """Return an order's value as JSON has it. The order stays the same."""
    if isinstance(value, bytes):
        return value.hex()
    return list(value) if isinstance(value, tuple) else value


def _order(sort: str, offset_s: float) -> Callable[[Member], Value]:
    if sort == "key":
        return lambda session: session.key
    if sort == "ip":
        return lambda session: _address_order(session.address, session.port)
    if sort == "conn":
        return lambda session: session.serial
    if sort == "connected":
        return lambda session: round((session.connected_at + offset_s) * _NS)
    return _COUNTERS[sort]


def _is_past(query: Query, entry: tuple[Value, int, Member]) -> bool:
    if query.after is None:
        return True
    value, serial, _ = entry
    if value != query.after:
        return bool(value < query.after if query.descending else value > query.after)
    if query.after_conn is None:
        return False
    return serial < query.after_conn if query.descending else serial > query.after_conn


def _next_link(query: Query, last: tuple[Value, int, Mapping[str, Any]]) -> str:
    value, serial, client = last
    after = client["key" if query.sort == "key" else "remote"] if query.sort in ("key", "ip") else str(value)
    return query.link(
        f"-{query.sort}" if query.descending else query.sort,
        after,
        "" if query.sort == "conn" else str(serial),
    )


def remote_of(session: Member) -> str:
    """Return `1.2.3.4:567` or `[2001:db8::7]:567`, or "" if unknown."""
    if session.address is None:
        return ""
    return (
        f"[{session.address}]:{session.port}"
        if session.address.version == 6
        else f"{session.address}:{session.port}"
    )


def describe(session: Member, offset_s: float, clock_s: float) -> dict[str, Any]:
    """Describe one connection under derper's names.

    `connected` is in nanoseconds, of whole seconds.
    """
    connected_at = datetime.fromtimestamp(session.connected_at + offset_s, timezone.utc)
    return {
        "connNum": session.serial,
        "key": format_key(session.key),
        "remote": remote_of(session),
        "connectedAt": connected_at.isoformat().replace("+00:00", "Z"),
        "connected": round(clock_s - session.connected_at) * _NS,
        "active": session.outbox.current,
        "dup": session.rivals,
        "disabled": False,
        "home": session.home,
        "meshPeer": session.is_mesh,
        "notIdeal": session.not_ideal,
        "prober": session.info.is_prober,
        "version": session.info.version,
        "appName": session.info.app_name,
        "rxPkts": session.rx_packets,
        "rxBytes": session.rx_bytes,
        "txPkts": session.outbox.packets,
        "txBytes": session.outbox.payload_octets,
        "senders": len(session.heard or ()),
    }
