"""The debug pages as HTML: plain tables that a terminal browser shows as well.

Pure: data in, text out.

Everything that comes from outside (app names, addresses, link names) goes through `escape`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from relay.core.counts import Counts
from relay.core.stats import Rates, Stats
from relay.golang.flag import format_duration

if TYPE_CHECKING:
    from relay.observe.clients import Listing, Query

_STYLE: Final = """
:root { color-scheme: light dark; font: 15px system-ui, sans-serif; }
body { margin: 2em auto; max-width: 90em; padding: 0 1em; }
table { border-collapse: collapse; margin: .5em 0 1.5em; font: 13px ui-monospace, monospace; }
th, td { border-bottom: 1px solid #8884; padding: 3px 10px 3px 0; text-align: left; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.bad { color: #c33; font-weight: bold; }
"""
_PAGES: Final = {
    "clients/": "connected clients",
    "traffic": "what moved since the last look",
    "check": "consistency check",
    "varz": "metrics for Prometheus",
    "vars": "the same as JSON",
}
_SPEEDS: Final[tuple[tuple[Callable[[Counts], int], str], ...]] = (
    (lambda counts: counts.packets_received, "packets in"),
    (lambda counts: counts.packets_sent, "packets out"),
    (lambda counts: counts.bytes_received, "payload bytes in"),
    (lambda counts: counts.bytes_sent, "payload bytes out"),
    (lambda counts: counts.accepts, "handshakes"),
)
_SEARCHES: Final = (
    ("ip", "IP address", "203.0.113.7"),
    ("cidr", "CIDR", "203.0.113.0/24"),
    ("key", "node key", "nodekey:8cde7aa8ef94232c9d274ba5422936c639dd6d24688576d919af59277841b430"),
    ("app", "app name", ""),
)
_COLUMNS: Final = (
    ("conn", "conn#"), ("key", "node key"), ("ip", "remote"), ("connected", "connected"), ("", "flags"),
    ("", "ver"), ("", "app"), ("rxpkts", "rx pkts"), ("rx", "rx bytes"), ("txpkts", "tx pkts"),
    ("tx", "tx bytes"), ("", "senders"),
)  # fmt: skip
_FLAGS: Final = {"home": "home", "meshPeer": "mesh", "prober": "prober", "notIdeal": "notideal"}


class _Raw(str):
    """Text that is HTML already."""

    __slots__ = ()


def _page(title: str, *parts: str) -> str:
    name = f"<title>{escape(title)}</title>"
    head = f'<html lang="en"><head><meta charset="utf-8">{name}<style>{_STYLE}</style></head>'
    return "\n".join(
        ["<!DOCTYPE html>", head, f"<body><h1>{escape(title)}</h1>", *parts, "</body></html>", ""]
    )


def _cell(value: object) -> str:
    if isinstance(value, _Raw):
        return f"<td>{value}</td>"
    if isinstance(value, (int, float)):
        return f'<td class="n">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"


def _table(heads: Iterable[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [
        "<tr>"
        + "".join(f"<th>{head if isinstance(head, _Raw) else escape(head)}</th>" for head in heads)
        + "</tr>"
    ]
    lines += ["<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _link(url: str, text: str) -> _Raw:
    return _Raw(f'<a href="{escape(url)}">{escape(text)}</a>')


def index_page(about: Mapping[str, str], stats: Stats, rates: Rates, links: Sequence[str]) -> str:
    """Return `/debug/`: the relay, its figures now, and its refusals."""
    faults = "".join(f'<p class="bad">{escape(problem)}</p>' for problem in stats.problems)
    speeds = [
        (text, *(round(rates.per_second(counter, over_s), 1) for over_s in (5, 60)), counter(stats.counters))
        for counter, text in _SPEEDS
    ]
    drops = [
        (reason, count, stats.dropped_bytes.get(reason, 0))
        for reason, count in sorted(stats.dropped_packets.items())
        if count
    ]
    parts = [
        faults,
        _table(("this relay", ""), list(about.items())),
        _table(("per second", "last 5 s", "last 60 s", "in all"), speeds),
        _table(
            ("now", ""),
            [(name, value) for name, value in sorted(stats.gauges.items()) if "unix_time" not in name],
        ),
        _table(("dropped", "packets", "bytes"), drops or [("nothing", 0, 0)]),
        *(
            _table((name, "count"), sorted(stats.labelled[name].items()))
            for name in ("closes", "refusals")
            if stats.labelled.get(name)
        ),
        _table(("mesh links",), [(name,) for name in links]) if links else "",
        "<ul>",
        *(f"<li>{_link('/debug/' + path, path)}: {text}</li>" for path, text in _PAGES.items()),
        "</ul>",
    ]
    return _page("DERP relay", *filter(None, parts))


def clients_index_page(conns: int, keys: int) -> str:
    """Return `/debug/clients/` without a filter."""
    forms = [
        f'<li><form method="GET">By {text}: '
        f'<input name="{name}" size="{max(len(hint), 40)}" placeholder="{hint}">'
        " <button>Go</button></form></li>"
        for name, text, hint in _SEARCHES
    ]
    return _page(
        "DERP clients",
        f"<p>{conns:,} connections for {keys:,} node keys.</p>",
        '<ul><li><form method="GET"><button name="all" value="1">List all clients</button></form></li>',
        *forms,
        "</ul>",
        "<p>Also: app=NAME (repeatable, narrows any filter), "
        "sort=key|ip|conn|connected|rx|tx|rxpkts|txpkts (leading - turns it round), limit=N, "
        "after=X (a value of the sort column; for connected, Unix nanoseconds or a duration like 30m), "
        "format=json.</p>",
    )


def clients_page(query: Query, listing: Listing) -> str:
    """Return `/debug/clients/` with a filter: one page of connections."""
    following = f" {_link(listing.next, 'Next page')} ({listing.remaining:,} more)" if listing.next else ""
    return _page(
        f"DERP clients: {query}",
        '<p><a href="/debug/">relay</a> · <a href="/debug/clients/">search</a></p>',
        f"<p>Showing {len(listing.clients):,} of {listing.connections:,} matching connections "
        f"({listing.keys:,} node keys).{following}</p>",
        _table((_head(query, sort, text) for sort, text in _COLUMNS), map(_client_row, listing.clients)),
    )


def _head(query: Query, sort: str, text: str) -> str:
    if not sort:
        return text
    if sort == query.sort:
        arrow = "▼" if query.descending else "▲"
        return _Raw(f"{_link(query.link(sort if query.descending else f'-{sort}'), text)} {arrow}")
    # Of traffic, the most is of interest.
    return _link(query.link(f"-{sort}" if sort[:2] in ("rx", "tx") else sort), text)


def _client_row(client: Mapping[str, Any]) -> list[object]:
    flags = [text for name, text in _FLAGS.items() if client[name]]
    if client["dup"]:
        flags.append("dup-active" if client["active"] else "dup")
    app = client["appName"]
    return [
        client["connNum"],
        _link(f"/debug/traffic?key={client['key']}", client["key"]),
        client["remote"],
        format_duration(client["connected"] // 1_000_000_000),
        " ".join(flags),
        client["version"],
        app,
        *(client[name] for name in ("rxPkts", "rxBytes", "txPkts", "txBytes", "senders")),
    ]


def traffic_page(document: Mapping[str, Any]) -> str:
    """Return `/debug/traffic`: the busiest connections, or one peer."""
    way = (
        '<p><a href="/debug/">relay</a> · <a href="/debug/clients/">clients</a> · '
        "reload for what moved since now</p>"
    )
    since = document["since_s"]
    if "busiest" in document:
        rows = [
            (_link(f"?key={row['Key']}", row["Key"]), row["Recv"], row["Sent"], row["UniqueSenders"])
            for row in document["busiest"]
        ]
        title = f"Traffic of the last {format_duration(since)}"
        return _page(title, way, _table(("node key", "bytes from it", "bytes to it", "senders"), rows))
    about = [
        (name, document[name]) for name in ("known", "received_bytes", "sent_bytes", "waiting", "dropped")
    ]
    return _page(
        document["key"],
        way,
        _table(
            (f"last {format_duration(since)}", ""),
            [(name.replace("_", " "), str(value)) for name, value in about],
        ),
        _table((text for _, text in _COLUMNS), map(_client_row, document["connections"])),
        *(
            _table((text,), [(_link(f"?key={key}", key),) for key in document[name]])
            for name, text in (("heard_from", "got packets from"), ("sent_to", "its packets went to"))
        ),
        _table(("reachable through",), [(name,) for name in document["links"]]),
    )
