"""The answers of the relay's listeners: the probes, the home page, and the pages by path.

Sources: derp/derpserver/handler.go, cmd/derper/derper.go, tsweb/tsweb.go of tailscale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from relay.http.http11 import TEXT, UPGRADE, Answer, Headers, Page, Pages, Request, Response, error

_CHALLENGE: Final = re.compile(rb"[a-zA-Z0-9.\-_:]{1,64}")
BROWSER_HEADERS: Final[Headers] = (
    ("Strict-Transport-Security", "max-age=63072000; includeSubDomains"),
    (
        "Content-Security-Policy",
        "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; "
        "block-all-mixed-content; object-src 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
)
HTML: Final = ("Content-Type", "text/html; charset=utf-8")
NO_CACHE: Final = ("Cache-Control", "no-cache, no-store, must-revalidate, no-transform, max-age=0")


def find_page(pages: Mapping[str, Page], path: str) -> Page | None:
    """Return the page for a path; the longest prefix wins."""
    fitting = [name for name in pages if path == name or (name.endswith("/") and path.startswith(name))]
    return pages[max(fitting, key=len)] if fitting else None


def answer(request: Request, pages: Pages) -> Answer:
    """Return the main listener's answer, or `UPGRADE` if the connection is to become DERP's."""
    fixed = _FIXED.get(request.path)
    if fixed is not None:
        return fixed(request, pages)
    page = find_page(pages.by_path, request.path)
    return page(request) if page is not None else _home(pages)


def answer_plain(request: Request, pages: Pages) -> Answer:
    """Return the answer of the plain-HTTP listener beside TLS.

    It has the captive-portal check and the debug pages; everything else is redirected to https.
    """
    if request.path == "/generate_204":
        return _no_content(request, pages)
    if request.path.startswith("/debug/") and (page := find_page(pages.by_path, request.path)) is not None:
        return page(request)
    if request.method not in ("GET", "HEAD"):
        return error(400, "Use HTTPS")
    location = f"https://{request.header(b'host').decode('latin-1')}{request.target}"
    if not location.isascii():  # a header must be
        return error(400, "bad request")
    return Response(302, b"", (("Location", location),))


def _no_content(request: Request, _pages: Pages) -> Response:
    """Answer the check for captive portals: 204, with the client's challenge if well-formed."""
    challenge = request.header(b"x-tailscale-challenge")
    if _CHALLENGE.fullmatch(challenge):
        return Response(204, headers=(NO_CACHE, ("X-Tailscale-Response", f"response {challenge.decode()}")))
    return Response(204, headers=(NO_CACHE,))


def _derp(request: Request, pages: Pages) -> Response:
    if not pages.derp:
        return error(404, "derp server disabled")
    if request.header(b"upgrade").lower() in (b"derp", b"websocket"):
        return UPGRADE
    return error(426, "DERP requires connection upgrade")


def _robots(_request: Request, _pages: Pages) -> Response:
    return Response(200, b"User-agent: *\nDisallow: /\n", (*BROWSER_HEADERS, TEXT))


def _probe(request: Request, _pages: Pages) -> Response:
    if request.method not in ("GET", "HEAD"):
        return error(405, "bogus probe method")
    return Response(200, headers=(("Access-Control-Allow-Origin", "*"),))


def _home(pages: Pages) -> Response:
    if pages.home.startswith(("http://", "https://")):
        return Response(302, b"", (*BROWSER_HEADERS, ("Location", pages.home)))
    if pages.home == "blank":
        return Response(200, b"", (*BROWSER_HEADERS, HTML))
    status = "" if pages.derp else "<p>Status: <b>disabled</b></p>\n"
    return Response(200, HOME_PAGE.format(status=status).encode(), (*BROWSER_HEADERS, HTML))


HOME_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>DERP relay</title></head><body>
<h1>DERP</h1>
<p>This is a relay of a private Tailscale network: a DERP and STUN server.</p>
{status}<p>It helps the network's own devices find each other, and passes on their encrypted packets
where no direct way exists. It can read none of them, and serves nobody else.</p>
<ul>
<li><a href="https://tailscale.com/kb/1232/derp-servers">About DERP</a></li>
<li><a href="https://pkg.go.dev/tailscale.com/derp">Protocol and Go docs</a></li>
</ul>
</body></html>
"""

_FIXED: Final = {
    "/derp": _derp,
    "/derp/probe": _probe,
    "/derp/latency-check": _probe,
    "/generate_204": _no_content,
    "/robots.txt": _robots,
}
