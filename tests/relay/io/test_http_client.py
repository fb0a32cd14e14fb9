import asyncio
import socket
from contextlib import ExitStack

import pytest

from relay.io.http_client import ClientRequest, ClientResponse, HttpClient, HttpError, HttpTimeout
from relay.keys.self_signed import make_self_signed
from tests.relay.httpserver import Script, asynchronous, serving, tls_context


@asynchronous
async def test_a_post_and_its_answer():
    script = Script((200, b'{"Allow":true}'))
    async with serving(script) as base:
        client = HttpClient()
        response = await client.send(ClientRequest("POST", f"{base}/verify?x=1", b"body", (("X-A", "b"),)), 5)
        client.close()
    assert (response.status, response.body) == (200, b'{"Allow":true}')
    ((method, target, headers, body),) = script.requests
    assert (method, target, body) == ("POST", "/verify?x=1", b"body")
    assert (
        headers["x-a"] == "b"
        and headers["host"] == base.removeprefix("http://")
        and headers["user-agent"].startswith("derp-relay/")
    )


@asynchronous
async def test_one_connection_serves_many_requests():
    script = Script((200, b"a"))
    async with serving(script) as base:
        client = HttpClient()
        for _ in range(5):
            assert (await client.send(ClientRequest("GET", base), 5)).body == b"a"
        assert script.connections == 1
        await asyncio.gather(*(client.send(ClientRequest("GET", base), 5) for _ in range(3)))
        assert 2 <= script.connections <= 3
        client.close()
        client.close()


@asynchronous
async def test_a_kept_connection_that_was_closed_is_replaced():
    """The server closes instead of answering again; a fresh connection gets the answer."""
    script = Script((200, b"a"), b"", (200, b"b"))
    async with serving(script) as base:
        client = HttpClient()
        assert (await client.send(ClientRequest("GET", base), 5)).body == b"a"
        assert (await client.send(ClientRequest("GET", base), 5)).body == b"b"
        assert script.connections == 2
        client.close()


@asynchronous
async def test_a_fresh_connection_that_is_closed_is_an_error():
    async with serving(Script(b"")) as base:
        with pytest.raises(HttpError, match=r"\w"):
            await HttpClient().send(ClientRequest("GET", base), 5)


@asynchronous
async def test_idle_connections_age_and_belong_to_one_origin(monkeypatch):
    script, other = Script((200, b"a")), Script((200, b"b"))
    async with serving(script) as base, serving(other) as elsewhere:
        client = HttpClient()
        await client.send(ClientRequest("GET", base), 5)
        assert (await client.send(ClientRequest("GET", elsewhere), 5)).body == b"b"
        await client.send(ClientRequest("GET", base), 5)
        monkeypatch.setattr("relay.io.http_client.IDLE_S", -1)
        await client.send(ClientRequest("GET", base), 5)
        assert script.connections == 3
        client.close()


@asynchronous
async def test_hung_up_while_idle():
    script = Script((200, b"a", [("Connection", "close")]))
    async with serving(script) as base:
        client = HttpClient()
        for _ in range(2):
            assert (await client.send(ClientRequest("GET", base), 5)).body == b"a"
        assert script.connections == 2
        client.close()


@asynchronous
async def test_long_bodies_are_cut():
    async with serving(Script((200, b"x" * 100_000))) as base:
        client = HttpClient()
        assert len((await client.send(ClientRequest("GET", base, max_body=4096), 5)).body) == 4096
        client.close()


def answer_of(response):
    async def answer(request, heads):
        return response

    return answer


@asynchronous
async def test_redirects_that_keep_the_method_are_followed():
    script = Script((308, b"", [("Location", "/there")]), (307, b"", [("Location", "/verify")]), (200, b"ok"))
    async with serving(script) as base:
        client = HttpClient()
        assert (await client.send(ClientRequest("POST", base, b"q"), 5)).body == b"ok"
        assert [(r[0], r[1], r[3]) for r in script.requests] == [
            ("POST", "/", b"q"),
            ("POST", "/there", b"q"),
            ("POST", "/verify", b"q"),
        ]
        script.answers = [(308, b"", [("Location", "/again")])]
        with pytest.raises(HttpError, match="more than 5 redirects"):
            await client.send(ClientRequest("GET", base), 5)
        script.answers = [(308, b"")]
        assert (await client.send(ClientRequest("GET", base), 5)).status == 308
        script.answers = [(308, b"", [("Location", "file:///etc/passwd")])]
        with pytest.raises(HttpError, match="not an http"):
            await client.send(ClientRequest("GET", base), 5)
        script.answers = [(308, b"", [("Location", "http://[nowhere/")])]
        with pytest.raises(HttpError, match="Invalid IPv6"):
            await client.send(ClientRequest("GET", base), 5)
        client._ask = answer_of(ClientResponse(307, b"", "http://127.0.0.1/verify"))
        with pytest.raises(HttpError, match="from https to http"):
            await client.send(ClientRequest("GET", "https://127.0.0.1/verify"), 5)
        del client._ask
        script.answers = [(302, b"", [("Location", "/login")])]
        assert (await client.send(ClientRequest("GET", base), 5)).location == "/login"
        client.close()


@asynchronous
async def test_name_and_password_in_the_url():
    script = Script((200, b""))
    async with serving(script) as base:
        client = HttpClient()
        await client.send(ClientRequest("GET", base.replace("//", "//me:p%40ss@")), 5)
        await client.send(ClientRequest("GET", base.replace("//", "//me@")), 5)
        client.close()
    assert [r[2]["authorization"] for r in script.requests] == ["Basic bWU6cEBzcw==", "Basic bWU6"]
    assert "@" not in script.requests[0][2]["host"]


@pytest.mark.parametrize("url", ["http:///x", "ftp://h/", "relay", "http://[::1", "http://127.0.0.1:99999/"])
@asynchronous
async def test_what_is_no_url(url):
    with pytest.raises(HttpError):
        await HttpClient().send(ClientRequest("GET", url), 5)


@asynchronous
async def test_an_address_that_does_not_answer_does_not_keep_others_waiting(monkeypatch):
    script = Script((200, b"a"))
    async with serving(script) as base:
        port = int(base.rpartition(":")[2])
        addresses = ("127.0.0.2", port), ("127.0.0.1", port)

        async def getaddrinfo(self, host, port, **_):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

        monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)
        with ExitStack() as stack:
            silent = stack.enter_context(socket.create_server(addresses[0], backlog=0))
            for _ in range(3):  # its queue is full: the kernel drops further connections
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(silent.getsockname())
            client = HttpClient()
            assert (await client.send(ClientRequest("GET", f"http://hs.example:{port}/"), 5)).body == b"a"
            client.close()


@asynchronous
async def test_no_server_there():
    async with serving(Script((200, b""))) as base:
        pass
    with pytest.raises(HttpError, match=r"refused|Connect"):
        await HttpClient().send(ClientRequest("GET", base), 5)


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    ],
)
@asynchronous
async def test_what_is_no_answer(answer):
    async with serving(Script(answer)) as base:
        with pytest.raises(HttpError):
            await HttpClient().send(ClientRequest("GET", base), 5)


@asynchronous
async def test_an_early_hint_is_not_the_answer():
    async with serving(
        Script(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    ) as base:
        client = HttpClient()
        assert (await client.send(ClientRequest("GET", base), 5)).body == b"x"
        client.close()


@asynchronous
async def test_time_is_limited():
    async def never():
        await asyncio.sleep(60)

    async with serving(Script((200, b""), before_answer=never)) as base:
        with pytest.raises(HttpTimeout, match=r"within 0.05 s"):
            await HttpClient().send(ClientRequest("GET", base), 0.05)


@asynchronous
async def test_tls_is_checked_against_the_systems_trust(tmp_path, monkeypatch):
    context, certificate = tls_context(tmp_path, make_self_signed)
    async with serving(Script((200, b"secret")), tls=context) as base:
        with pytest.raises(HttpError, match=r"CERTIFICATE_VERIFY_FAILED"):
            await HttpClient().send(ClientRequest("GET", base), 5)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        client = HttpClient()
        assert (await client.send(ClientRequest("GET", base), 5)).body == b"secret"
        assert (await client.send(ClientRequest("GET", base), 5)).body == b"secret"
        client.close()


@asynchronous
async def test_a_unix_socket(tmp_path):
    script = Script((200, b"{}"))
    async with serving(script, unix_path=str(tmp_path / "s")) as path:
        client = HttpClient(unix_path=path)
        assert (await client.send(ClientRequest("GET", "http://local-tailscaled.sock/x"), 5)).body == b"{}"
        client.close()
    assert script.requests[0][2]["host"] == "local-tailscaled.sock"
    with pytest.raises(HttpError):
        await HttpClient(unix_path=str(tmp_path / "none")).send(ClientRequest("GET", "http://x/"), 5)
