"""The `/debug/` pages and `/metrics`: the relay right now, for its operator. Reads the switch.

Only for peers on loopback whose request no proxy passed on, or on the address that
`-metrics-listen` names: node keys and addresses are in there. Same paths as derper where it has
them; `traffic` looks at one peer, or at the busiest.

Several workers look like one relay: the one that is asked asks the others for their part (`Whole`)
and joins the parts. The figures come from the census, which keeps them without asking.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from relay import __version__
from relay.core.handshake import parse_hex_key
from relay.core.stats import Rates, Stats
from relay.core.switch import Switch
from relay.golang.flag import format_duration
from relay.http.answers import BROWSER_HEADERS, HTML
from relay.http.http11 import TEXT, Answer, Headers, Page, Request, Response, error
from relay.http.proxy_header import TrustedProxies
from relay.observe.clients import Query, find_clients, join_clients, parse_query
from relay.observe.html import clients_index_page, clients_page, index_page, traffic_page
from relay.observe.metrics import CONTENT_TYPE, make_registry, render
from relay.observe.traffic import PAGE, Traffic, join_traffic, row

JSON: Final = ("Content-Type", "application/json")
STREAM_EVERY_S: Final = 2.0  # derper's
_HEADERS: Final[Headers] = tuple(
    (name, value + "; style-src 'self' 'unsafe-inline'" if name == "Content-Security-Policy" else value)
    for name, value in BROWSER_HEADERS
)


@dataclass
class Inside:
    """The data of the pages.

    `offset_s` turns the switch's clock into Unix time; `about` is shown as it is.
    """

    switch: Switch
    read_stats: Callable[[], Stats]  # of all workers
    rates: Rates
    offset_s: float
    about: Mapping[str, str] = field(default_factory=dict)
    # The other workers' answers to a path and query.
    ask_others: Callable[[str], Awaitable[list[Any]]] | None = None

    def __post_init__(self) -> None:
        self.started_s = self.switch.clock()
        self.wholes: tuple[Whole, ...] = (_Clients(self), _Traffic(self), _Check(self))


def may_debug(request: Request) -> bool:
    """Whether the peer itself is on loopback.

    A request that any proxy passed on is a stranger's.
    """
    if request.header(b"x-forwarded-for") or request.header(b"forwarded"):
        return False
    try:
        peer = ip_address(request.peer.partition("%")[0])
    except ValueError:
        return False
    return (getattr(peer, "ipv4_mapped", None) or peer).is_loopback


def names_loopback(request: Request) -> bool:
    """Whether a request is for a loopback address, "localhost", or no host.

    A web page can make a name of its own resolve to loopback, and read the answers. The browser
    then sends that name.
    """
    host = request.header(b"host").decode("latin-1")
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in ("", "localhost") or ip_address(name).is_loopback
    except ValueError:
        return False


def make_pages(
    inside: Inside, *, anyone: bool = False, proxies: TrustedProxies | None = None
) -> dict[str, Page]:
    """Return path -> page, for `http11.Pages`.

    `anyone`: the listener's address is the permission; all who reach it may look. Requests from
    `proxies` are refused otherwise, on loopback as well: proxies may forget to say for whom they
    ask.
    """
    registry = make_registry(inside.read_stats)

    def metrics(_request: Request) -> Response:
        return Response(200, render(registry.collect()), (("Content-Type", CONTENT_TYPE),))

    pages: dict[str, Page] = {
        "/metrics": metrics,
        "/debug/": lambda request: _index(request, inside),
        "/debug/varz": metrics,
        "/debug/vars": lambda _: _json_response(inside.read_stats().to_json()),
        **{path: _move_to(f"{path}/") for path in ("/debug", "/debug/clients")},
        **{whole.path: whole.answer for whole in inside.wholes},
    }
    return (
        pages
        if anyone
        else {path: _guarded(page, proxies or TrustedProxies([])) for path, page in pages.items()}
    )


def make_parts(inside: Inside) -> dict[str, Page]:
    """Return path -> page, for the other workers: this one's part."""
    return {whole.path: whole.answer_part for whole in inside.wholes}


def _move_to(path: str) -> Page:
    return lambda _: Response(302, b"", (("Location", path),))


def _guarded(page: Page, proxies: TrustedProxies) -> Page:
    def guarded(request: Request) -> Answer:
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
    return _html_response(
        index_page(
            about, stats, inside.rates, [link.name for link in inside.switch.mesh_links if not link.sibling]
        )
    )


class Whole(ABC):
    """A page about all workers.

    `look` returns one worker's part, as JSON has it; `join` makes the answer of all of them.
    """

    path = ""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    @abstractmethod
    def look(self, query: str) -> Any:
        """Return this worker's part. Raises ValueError with words for the reader."""

    @abstractmethod
    def join(self, request: Request, parts: Sequence[Any]) -> Response:
        """Return the answer that the parts of all workers make."""

    def answer(self, request: Request) -> Answer:
        """Answer a reader."""
        try:
            own = self.look(request.query)
        except ValueError as e:
            return error(400, str(e))
        if self._inside.ask_others is None:
            return self.join(request, [own])
        return self._ask_and_join(request, own)

    async def _ask_and_join(self, request: Request, own: Any) -> Response:
        return self.join(request, [own, *await self._others(request.query)])

    async def _others(self, query: str) -> list[Any]:
        ask = self._inside.ask_others
        return await ask(f"{self.path}?{query}") if ask is not None else []

    def answer_part(self, request: Request) -> Response:
        """Answer another worker, which has looked at the query before."""
        return _json_response(self.look(request.query))


class _Check(Whole):
    """`/debug/check`, with derper's sentence."""

    path = "/debug/check"

    def look(self, query: str) -> list[str]:
        return self._inside.switch.consistency_check()

    def join(self, request: Request, parts: Sequence[list[str]]) -> Response:
        problems = [problem for part in parts for problem in part]
        if problems:
            return Response(500, ("\n".join(problems) + "\n").encode(), (*_HEADERS, TEXT))
        return Response(200, b"derp.Server ConsistencyCheck okay", (*_HEADERS, TEXT))


class _Clients(Whole):
    """`/debug/clients/`: clients.py has the queries."""

    path = "/debug/clients/"

    def look(self, query: str) -> dict[str, Any]:
        inside, switch = self._inside, self._inside.switch
        clock_s = switch.clock()
        wanted = parse_query(query, clock_s + inside.offset_s) or Query(limit=0)
        return find_clients(
            wanted,
            (s for s in switch.sessions if not s.sibling),
            clock_s,
            inside.offset_s,
        )

    def join(self, request: Request, parts: Sequence[dict[str, Any]]) -> Response:
        query = parse_query(request.query, self._inside.switch.clock() + self._inside.offset_s)
        listing = join_clients(query or Query(limit=0), parts)
        if query is not None:
            return (
                _json_response(listing.to_json(query))
                if query.json
                else _html_response(clients_page(query, listing))
            )
        counts = {"conns": listing.connections, "keys": listing.keys}
        return (
            _json_response(counts)
            if _form(request) == "json"
            else _html_response(clients_index_page(**counts))
        )


class _Traffic(Whole):
    """`/debug/traffic`: a page for browsers, or `format=json`, or derper's endless stream."""

    path = "/debug/traffic"

    def __init__(self, inside: Inside) -> None:
        super().__init__(inside)
        self._traffic = Traffic(inside.switch, inside.offset_s)

    def look(self, query: str) -> dict[str, Any]:
        fields = parse_qs(query)
        viewer, key = (fields.get(name, [""])[0] for name in ("viewer", "key"))
        if not key:
            return self._traffic.busiest(viewer)
        try:
            return self._traffic.peer(viewer, parse_hex_key(key.removeprefix("nodekey:")))
        except ValueError as e:
            raise ValueError(f"bad key: {e}") from None

    def join(self, request: Request, parts: Sequence[dict[str, Any]]) -> Response:
        document = join_traffic(parts)
        return (
            _json_response(document) if _form(request) == "json" else _html_response(traffic_page(document))
        )

    def answer(self, request: Request) -> Answer:
        wants_stream = not _form(request) and b"text/html" not in request.header(b"accept")
        if request.method != "GET" or not wants_stream:
            return super().answer(request)
        viewer, key = secrets.token_hex(8), parse_qs(request.query).get("key", [PAGE])[0]
        query = urlencode({"viewer": viewer, "key": key})
        try:
            self.look(query)  # from here on it counts
        except ValueError as e:
            return error(400, str(e))
        return self._begin(query)

    async def _begin(self, query: str) -> Response:
        await self._others(query)
        return Response(200, self._lines(query), (*_HEADERS, JSON))

    async def _lines(self, query: str) -> AsyncGenerator[bytes, None]:
        """Yield a JSON object per line and connection that moved bytes; b"" for an idle round."""
        while True:
            await asyncio.sleep(STREAM_EVERY_S)
            document = join_traffic([self.look(query), *await self._others(query)])
            rows = document["busiest"] if "busiest" in document else _rows_of_peer(document)
            yield b"".join(json.dumps(each).encode() + b"\n" for each in rows)


def _rows_of_peer(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    received, sent = document["received_bytes"], document["sent_bytes"]
    return [row(document["key"], received, sent, len(document["heard_from"]))] if received or sent else []


def _form(request: Request) -> str:
    return parse_qs(request.query).get("format", [""])[0]
