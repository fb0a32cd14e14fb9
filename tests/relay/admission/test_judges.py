import asyncio
import json

import pytest

from relay.admission import admission
from relay.admission.admission import TailscaledCheck, UrlCheck
from tests.relay.httpserver import Script, asynchronous, serving

A = bytes(range(32))


# The admission controller


CONTROLLERS = {
    ("verify_url_allowed", True, True): [
        (200, b'{"Allow": true}'),
        (200, b'{"allow":true,"x":1}'),
        (200, b' {"Allow":true} x'),  # the first document counts
        (200, b'{"Allow":true}{"Allow":false}'),
        (200, b'{"Allow":true,"n":' + b"9" * 4000 + b"}"),
    ],
    ("verify_url_refused", False, True): [
        (200, b'{"Allow": false}'),
        (200, b"{}"),
        (200, b'{"Allow":false}\xff{"Allow":true}'),
        (200, b'{"Allow":null}'),
        (200, b"null"),
    ],
    ("verify_url_bad_answer", False, False): [
        (200, b""),
        (200, b'x {"Allow":true}'),
        (200, b'\xef\xbb\xbf{"Allow":true}'),
        (200, b"yes"),
        (200, b"[true]"),
        (200, b'{"Allow": 1}'),
        (200, b"[" * 4000),
        (200, b'{"Allow": true' + b" " * 5000 + b"}"),
    ],
    ("verify_url_status", False, False): [
        (204, b""),
        (403, b'{"Allow": true}'),
        (500, b""),
        (302, b"", [("Location", "/")]),
    ],
}
"""(reason, allowed, clear) -> answers that bring them"""


def rows(table):
    return [(verdict, answer) for verdict, answers in table.items() for answer in answers]


@pytest.mark.parametrize(("verdict", "answer"), rows(CONTROLLERS))
@pytest.mark.parametrize("fail_open", [False, True])
@asynchronous
async def test_what_a_controller_answers(verdict, answer, fail_open):
    """The same with fail-open: it is about transport errors, not about answers."""
    async with serving(Script(answer)) as base:
        check = UrlCheck(f"{base}/verify", fail_open=fail_open)
        found = await check.ask(A, "203.0.113.7")
        check._client.close()
    assert (found.reason, found.allowed, found.clear) == verdict


@asynchronous
async def test_what_a_controller_is_asked():
    script = Script((200, b'{"Allow":true}'))
    async with serving(script) as base:
        check = UrlCheck(f"{base}/verify?token=x")
        await check.ask(A, "203.0.113.7")
        check._client.close()
    ((method, target, _, body),) = script.requests
    assert (method, target) == ("POST", "/verify?token=x")
    assert json.loads(body) == {"NodePublic": f"nodekey:{A.hex()}", "Source": "203.0.113.7"}
    assert b" " not in body


@asynchronous
async def test_a_controller_that_cannot_be_reached(monkeypatch):
    async with serving(Script((200, b""))) as base:
        pass
    closed = await UrlCheck(base).ask(A, "")
    opened = await UrlCheck(base, fail_open=True).ask(A, "")
    assert (closed.allowed, closed.reason, closed.clear) == (
        False,
        "verify_url_unreachable",
        False,
    ) and closed.detail
    assert (opened.allowed, opened.reason, opened.clear) == (True, "verify_url_failed_open", False)

    async def never():
        await asyncio.sleep(60)

    monkeypatch.setattr(admission, "LIMIT_S", 0.05)
    async with serving(Script((200, b""), before_answer=never)) as base:
        assert (await UrlCheck(base).ask(A, "")).reason == "verify_url_timeout"
        assert (await UrlCheck(base, fail_open=True).ask(A, "")).reason == "verify_url_failed_open"


STALLED = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"
MOVED = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "stays", "reason"),
    [
        (STALLED, True, "verify_url_timeout"),
        (STALLED, False, "verify_url_unreachable"),
        (b"HTTP/1.1 200", True, "verify_url_failed_open"),
        (b"HTTP/1.1 200", False, "verify_url_failed_open"),
        (MOVED, False, "verify_url_failed_open"),
    ],
)
@asynchronous
async def test_failing_open_is_for_a_controller_that_says_nothing(answer, stays, reason, monkeypatch):
    """One that begins an answer was reached: it refuses, as with derper."""
    monkeypatch.setattr(admission, "LIMIT_S", 0.1)

    async def serve(reader, writer):
        await reader.readuntil(b"}")
        writer.write(answer)
        await writer.drain()
        if stays:
            await reader.read()  # until the client gives up
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    verdict = await UrlCheck(f"http://127.0.0.1:{port}/verify", fail_open=True).ask(A, "")
    server.close()
    await asyncio.sleep(0.05)  # for both sides' transports to be gone
    assert (verdict.reason, verdict.clear) == (reason, False)


# tailscaled


TAILSCALEDS = {
    ("tailscaled_known", True, True): [
        (200, b'{"Node":{}}'),
    ],
    ("tailscaled_unknown", False, True): [
        (404, b"no match"),
    ],
    ("tailscaled_error", False, False): [
        (403, b""),
        (500, b""),
        (400, b"invalid 'addr' parameter"),
    ],
}


@pytest.mark.parametrize(("verdict", "answer"), rows(TAILSCALEDS))
@asynchronous
async def test_what_tailscaled_answers(tmp_path, verdict, answer):
    script = Script(answer)
    async with serving(script, unix_path=str(tmp_path / "s")) as path:
        check = TailscaledCheck(path)
        found = await check.ask(A, "203.0.113.7")
        check._client.close()
    assert (found.reason, found.allowed, found.clear) == verdict
    assert ("too old" in found.detail) is (answer[0] == 400)
    ((method, target, headers, _),) = script.requests
    assert (method, target) == ("GET", f"/localapi/v0/whois?addr=nodekey%3A{A.hex()}")
    assert headers["host"] == "local-tailscaled.sock" and headers["tailscale-cap"] == "145"
    assert not {"origin", "referer"} & set(headers)


@asynchronous
async def test_no_tailscaled(tmp_path):
    verdict = await TailscaledCheck(str(tmp_path / "none")).ask(A, "")
    assert (verdict.allowed, verdict.reason, verdict.clear) == (False, "tailscaled_unreachable", False)
    assert TailscaledCheck()._client._unix_path == "/var/run/tailscale/tailscaled.sock"
