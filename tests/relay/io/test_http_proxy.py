"""The choice of a proxy by Go's rules, and requests through a real one."""

import asyncio
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from relay.io.http_client import ClientRequest, HttpClient, HttpError
from relay.io.http_proxy import Proxy, find_proxy
from relay.keys.self_signed import make_self_signed
from tests.relay.httpserver import Script, asynchronous, serving, tls_context

PROXY = {"HTTPS_PROXY": "http://proxy.example:3128", "HTTP_PROXY": "plain.example:8080"}


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://hs.example/verify", {}, None),
        ("https://hs.example/verify", PROXY, Proxy("proxy.example", 3128)),
        ("http://hs.example/verify", PROXY, Proxy("plain.example", 8080)),
        ("http://hs.example", {"HTTPS_PROXY": "http://p"}, None),
        ("https://hs.example", {"https_proxy": "p"}, Proxy("p", 80)),
        ("https://hs.example", {"https_proxy": "small", "HTTPS_PROXY": "capital"}, Proxy("capital", 80)),
        (
            "https://hs.example",
            {"HTTPS_PROXY": "http://me:s%20cret@p:1"},
            Proxy("p", 1, "Basic bWU6cyBjcmV0"),
        ),
        ("https://localhost:8443", PROXY, None),
        ("https://127.0.0.9", PROXY, None),
        ("https://[::1]:8080", PROXY, None),
    ],
)
def test_which_proxy(url, environ, expected):
    assert find_proxy(urlsplit(url), environ) == expected


NO_PROXY = {
    True: [
        ("*", "hs.example"),
        ("other.example, HS.example", "hs.example"),
        ("example", "hs.example"),
        (".example", "hs.example"),
        ("*.hs.example", "a.hs.example"),
        ("hs.example:443", "hs.example"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3:443", "10.1.2.3"),
        ("2001:db8::/32", "[2001:db8::7]"),
        ("[2001:db8::7]:443", "[2001:db8::7]"),
    ],
    False: [
        ("hs.example", "not-hs.example"),
        (".hs.example", "hs.example"),
        ("hs.example:444", "hs.example"),
        ("10.0.0.0/8", "11.1.2.3"),
        ("", "hs.example"),
        (" ,*.", "hs.example"),
    ],
}
"""Whether the host is asked directly -> (NO_PROXY, host)."""


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"), [(*row, direct) for direct, rows in NO_PROXY.items() for row in rows]
)
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_exemptions(no_proxy, host, direct, name):
    assert (find_proxy(urlsplit(f"https://{host}/verify"), {**PROXY, name: no_proxy}) is None) is direct


@pytest.mark.parametrize("text", ["https://p:443", "socks5://p", "http://"])
def test_a_proxy_of_another_kind_is_an_error_and_not_bypassed(text):
    with pytest.raises(ValueError, match="HTTPS_PROXY is not http://host:port"):
        find_proxy(urlsplit("https://hs.example"), {"HTTPS_PROXY": text})


@asynccontextmanager
async def tunnelling(answer=b"HTTP/1.1 200 Connection established\r\n\r\n", to=0):
    """A proxy that tunnels everything to one port of loopback, and remembers all requests."""
    asked = []

    async def copy(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def connected(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(answer)
        if b" 200 " in answer:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", to)
            await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], asked
        server.close()
    await asyncio.sleep(0.01)


@pytest.fixture
def unproxied(monkeypatch):
    """The test's servers are on loopback, which would never be asked through a proxy."""
    monkeypatch.setattr("relay.io.http_proxy._is_loopback", lambda host: False)


@asynchronous
async def test_https_goes_through_a_tunnel(tmp_path, monkeypatch, unproxied):
    context, trusted = tls_context(tmp_path, make_self_signed)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    script = Script((200, b"yes"))
    async with (
        serving(script, tls=context) as base,
        tunnelling(to=int(base.rpartition(":")[2])) as (port, asked),
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@127.0.0.1:{port}")
        client = HttpClient()
        for _ in range(2):
            assert (await client.send(ClientRequest("POST", f"{base}/verify", b"key"), 5)).body == b"yes"
        client.close()
    where = base.removeprefix("https://")
    assert len(asked) == 1  # the tunnel is kept
    assert asked[0].startswith(f"CONNECT {where} HTTP/1.1\r\n") and "Basic bWU6c2VjcmV0" in asked[0]
    assert [request[1] for request in script.requests] == ["/verify"] * 2
    assert "proxy-authorization" not in script.requests[0][2]


@asynchronous
async def test_http_is_asked_of_the_proxy_itself(monkeypatch, unproxied):
    script = Script((200, b"yes"))
    async with serving(script) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.replace("http://", "http://me:secret@"))
        client = HttpClient()
        assert (await client.send(ClientRequest("GET", "http://hs.example:8080/verify?a"), 5)).body == b"yes"
        client.close()
    _, target, headers, _ = script.requests[0]
    assert (target, headers["host"]) == ("http://hs.example:8080/verify?a", "hs.example:8080")
    assert headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", b"", b"SSH-2.0\r\n\r\n"],
)
@asynchronous
async def test_a_proxy_that_refuses_is_an_error(monkeypatch, answer):
    async with tunnelling(answer) as (port, _):
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{port}")
        with pytest.raises(HttpError, match=r"\w"):
            await HttpClient().send(ClientRequest("GET", "https://hs.example/verify"), 5)


@asynchronous
async def test_a_proxy_that_is_not_there_is_an_error(monkeypatch):
    async with tunnelling() as (port, _):
        pass
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{port}")
    with pytest.raises(HttpError, match=r"\w"):
        await HttpClient().send(ClientRequest("GET", "https://hs.example/verify"), 5)
