"""HTTP as derper answers it, request by request on the pure conversation.

See the protocol notes, sections 1.2 to 1.4, 1.7 and 7.
"""

import pytest

from relay.http import answers, http11
from tests.relay import vectors as v

CHALLENGE = "X-Tailscale-Challenge"


def pages(**more):
    return http11.Pages(v.SERVER, lambda: "Sun, 22 Nov 2026 10:00:00 GMT", lambda peer, _: peer, **more)


def converse(data, *, plain=False, **more):
    """Return the answer: bytes, or the Upgrade."""
    conversation = http11.Conversation(
        pages(**more), answers.answer_plain if plain else answers.answer, peer="203.0.113.9"
    )
    return conversation.receive(data)


def ask(target, *headers, method="GET", **more):
    """Return (status, headers by lower-case name, body) of one answer."""
    lines = [f"{method} {target} HTTP/1.1", "Host: derp.example", *headers]
    data = converse("\r\n".join([*lines, "", ""]).encode(), **more)
    assert isinstance(data, bytes)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return (
        int(first.split()[1]),
        {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)},
        body,
    )


# The upgrade


@pytest.mark.parametrize(
    "lines",
    [
        [
            "GET /derp HTTP/1.1",
            "Host: derp.example",
            "User-Agent: Go-http-client/1.1",
            "Connection: Upgrade",
            "Upgrade: DERP",
        ],
        # Connection is not looked at.
        ["GET /derp HTTP/1.1", "Host: derp.example:8443", "upgrade: derp"],
        ["POST /derp HTTP/1.1", "Host: x", "Upgrade: DERP"],  # nor is the method
        ["GET /derp?x=1 HTTP/1.1", "Host: x", "Upgrade: Derp", "Connection: keep-alive"],
        # Very old clients: no subprotocol, raw DERP.
        ["GET /derp HTTP/1.1", "Host: x", "Upgrade: websocket"],
    ],
)
def test_a_normal_upgrade(lines):
    upgrade = converse("\r\n".join([*lines, "", ""]).encode() + v.CLIENT_INFO_FRAME)
    assert isinstance(upgrade, http11.Upgrade)
    assert upgrade.answer == v.ANSWER_101, "these headers and no other, no Date, no Server"
    assert upgrade.rest == v.CLIENT_INFO_FRAME and not upgrade.is_websocket and not upgrade.not_ideal


@pytest.mark.parametrize("value, fast", [("1", True), ("0", False), ("", False), ("true", False)])
def test_a_fast_start_gets_no_answer_at_all(value, fast):
    upgrade = converse(
        f"GET /derp HTTP/1.1\r\nHost: x\r\nDerp-Fast-Start: {value}\r\nUpgrade: DERP\r\n\r\n".encode()
        + b"rest"
    )
    assert upgrade.answer == (b"" if fast else v.ANSWER_101) and upgrade.rest == b"rest"


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_bytes_behind_the_request_survive_any_cut(cut):
    data = (
        b"GET /derp HTTP/1.1\r\nHost: derp.example\r\nDerp-Fast-Start: 1\r\nUpgrade: DERP\r\n\r\n"
        + v.CLIENT_INFO_FRAME
    )
    conversation = http11.Conversation(pages(), answers.answer, peer="203.0.113.9")
    first = conversation.receive(data[:cut])
    if isinstance(first, http11.Upgrade):
        assert first.rest + data[cut:] == v.CLIENT_INFO_FRAME
    else:
        assert first == b""
        assert conversation.receive(data[cut:]).rest == v.CLIENT_INFO_FRAME


def test_ideal_node_marks_the_connection():
    assert converse(b"GET /derp HTTP/1.1\r\nHost: x\r\nIdeal-Node: 900a\r\nUpgrade: DERP\r\n\r\n").not_ideal
    assert not converse(b"GET /derp HTTP/1.1\r\nHost: x\r\nIdeal-Node: \r\nUpgrade: DERP\r\n\r\n").not_ideal


def test_a_websocket_with_the_subprotocol_is_one():
    lines = [
        "GET /derp HTTP/1.1",
        "Host: x",
        "Connection: Upgrade",
        "Upgrade: WebSocket",
        "Sec-WebSocket-Version: 13",
    ]
    lines += [
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: derp",
        "Origin: https://anywhere.example",
    ]
    upgrade = converse("\r\n".join([*lines, "", ""]).encode())
    assert (
        upgrade.is_websocket
        and b"Sec-WebSocket-Protocol: derp" in upgrade.answer
        and b"Derp-" not in upgrade.answer
    )


@pytest.mark.parametrize(
    "headers", [[], ["Upgrade: h2c"], ["Connection: Upgrade"], ["Upgrade: DERP, websocket"]]
)
def test_without_an_upgrade_it_is_426(headers):
    status, got, body = ask("/derp", *headers)
    assert (status, body) == (426, b"DERP requires connection upgrade\n")
    assert got["content-type"] == "text/plain; charset=utf-8" and got["x-content-type-options"] == "nosniff"


def test_derp_switched_off():
    assert ask("/derp", "Upgrade: DERP", derp=False)[::2] == (404, b"derp server disabled\n")
    assert ask("/derp/probe", derp=False)[0] == 200


def test_the_path_is_exact():
    assert ask("/derp/", "Upgrade: DERP")[0] == 200, "the home page"


# Probes


@pytest.mark.parametrize("path", ["/derp/probe", "/derp/latency-check"])
def test_probes(path):
    status, headers, body = ask(path)
    assert (status, body, headers["access-control-allow-origin"], headers["content-length"]) == (
        200,
        b"",
        "*",
        "0",
    )
    assert "strict-transport-security" not in headers
    assert ask(path, method="HEAD")[0] == 200
    status, _, body = ask(path, method="POST")
    assert (status, body) == (405, b"bogus probe method\n")
    assert ask(path, "Upgrade: DERP", "Connection: Upgrade")[0] == 200


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    "challenge, echoed",
    [
        ("ts_derp1.example:80-x", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("two words", False),
        ("", False),
        ("a/b", False),
        ("ü", False),
    ],
)
def test_the_captive_portal_challenge(challenge, echoed, plain):
    status, headers, body = ask("/generate_204?t=1795000000", f"{CHALLENGE}: {challenge}", plain=plain)
    assert (status, body) == (204, b"")
    assert headers.get("x-tailscale-response") == (f"response {challenge}" if echoed else None)
    assert headers["cache-control"] == "no-cache, no-store, must-revalidate, no-transform, max-age=0"
    assert "strict-transport-security" not in headers


# Pages


@pytest.mark.parametrize("path", ["/", "/index.html", "/favicon.ico", "/derpx"])
def test_every_other_path_is_the_home_page(path):
    status, headers, body = ask(path)
    assert status == 200 and b"DERP" in body and headers["content-type"] == "text/html; charset=utf-8"
    assert headers["strict-transport-security"] == "max-age=63072000; includeSubDomains"
    assert headers["x-frame-options"] == "DENY" and "default-src 'self'" in headers["content-security-policy"]


def test_home_modes():
    assert ask("/", home="blank")[::2] == (200, b"")
    status, headers, _ = ask("/anything", home="https://example.org/derp")
    assert (status, headers["location"]) == (302, "https://example.org/derp")
    assert b"disabled" in ask("/", derp=False)[2]


def test_robots():
    status, headers, body = ask("/robots.txt")
    assert (status, body) == (200, b"User-agent: *\nDisallow: /\n")
    assert headers["content-type"].startswith("text/plain")


def test_connect_is_refused():
    assert ask("example.org:443", method="CONNECT")[::2] == (403, b"CONNECT not enabled\n")


def test_requests_follow_each_other_on_one_connection():
    request = b"GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n"
    assert converse(request * 3).count(b"200 OK") == 3


# The plain listener beside TLS


def test_the_plain_listener_sends_everybody_to_https():
    status, headers, _ = ask("/a/b?c=d", plain=True)
    assert (status, headers["location"]) == (302, "https://derp.example/a/b?c=d")
    assert ask("/a", method="HEAD", plain=True)[0] == 302
    assert ask("/a", method="POST", plain=True)[::2] == (400, b"Use HTTPS\n")
    assert ask("/derp", "Upgrade: DERP", plain=True)[0] == 302


def test_the_plain_listener_has_the_debug_pages_too():
    pages = {"/debug/": lambda _: http11.Response(200, b"debug")}
    assert ask("/debug/clients/", plain=True, by_path=pages)[2] == b"debug"
