"""A conversation over HTTP beside the reference's answers: odd requests, odd endings."""

from __future__ import annotations

import pytest

from relay.http import answers, http11
from tests.relay import vectors as v

HOST = b"Host: derp.example.org\r\n"


def conversation(answer=answers.answer, **options) -> http11.Conversation:
    pages = http11.Pages(v.SERVER, lambda: "now", lambda peer, _forwarded: peer, **options)
    return http11.Conversation(pages, answer, peer="192.0.2.1")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", b"Connection header does not contain Upgrade"),
        (b"Connection: Upgrade\r\n", b"only 13 is supported"),
    ],
)
def test_a_websocket_upgrade_that_breaks_the_rfc_is_refused_with_words(head, words):
    said = conversation().receive(
        b"GET /derp HTTP/1.1\r\n"
        + HOST
        + b"Upgrade: websocket\r\nSec-WebSocket-Protocol: derp\r\n"
        + head
        + b"\r\n"
    )
    assert said.startswith(b"HTTP/1.1 4")
    assert words in said


def test_a_websocket_upgrade_without_the_subprotocol_is_a_raw_one():
    said = conversation().receive(b"GET /derp HTTP/1.1\r\n" + HOST + b"Upgrade: WebSocket\r\n\r\n")
    assert (said.answer, said.is_websocket) == (v.ANSWER_101, False)


@pytest.mark.parametrize("fast", [b"", b"Derp-Fast-Start: 1\r\n"])
@pytest.mark.parametrize("ideal", [b"", b"Ideal-Node: 900a\r\n"])
def test_the_short_cut_for_stock_clients_says_what_h11_says(fast, ideal):
    head = b"GET /derp HTTP/1.1\r\n" + HOST + b"User-Agent: Go-http-client/1.1\r\nConnection: Upgrade\r\n"
    request = head + fast + ideal + b"Upgrade: DERP\r\n\r\n"
    pages = http11.Pages(v.SERVER, lambda: "now", lambda peer, _forwarded: peer)
    short = http11.match_stock_upgrade(request + b"rest", pages, peer="192.0.2.1")
    long = conversation().receive(request + b"rest")
    fields = ("answer", "rest", "is_websocket", "not_ideal")
    assert [getattr(short, name) for name in fields] == [getattr(long, name) for name in fields]
    assert (short.request.client, short.request.path) == (long.request.client, long.request.path)
    for other in (
        request[:-1],
        request.replace(b"derp HTTP", b"derp/ HTTP"),
        request.replace(HOST, HOST + b"X-Forwarded-For: ::1\r\n"),
    ):
        assert http11.match_stock_upgrade(other, pages, peer="192.0.2.1") is None
    switched_off = http11.Pages(v.SERVER, lambda: "now", lambda peer, _forwarded: peer, derp=False)
    assert http11.match_stock_upgrade(request, switched_off, peer="192.0.2.1") is None


@pytest.mark.parametrize("answer", [answers.answer, answers.answer_plain])
@pytest.mark.parametrize("target", [b"example.org:443", b"/generate_204", b"/derp"])
def test_no_client_gets_a_tunnel(answer, target):
    """With any page: h11 would take any 2xx answer for the beginning of one."""
    talk = conversation(answer)
    said = talk.receive(b"CONNECT " + target + b" HTTP/1.1\r\n" + HOST + b"Upgrade: DERP\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 403 ")
    assert talk.receive(b"GET /robots.txt HTTP/1.1\r\n" + HOST + b"\r\n").startswith(
        (b"HTTP/1.1 200", b"HTTP/1.1 302")
    )


@pytest.mark.parametrize(
    "field", [b"Content-Length: 5", b"Content-Length: 1000000", b"Transfer-Encoding: chunked"]
)
@pytest.mark.parametrize("target", [b"/robots.txt", b"/derp"])
def test_a_body_is_refused_at_its_head(field, target):
    talk = conversation()
    said = talk.receive(
        b"POST " + target + b" HTTP/1.1\r\n" + HOST + b"Upgrade: DERP\r\n" + field + b"\r\n\r\n1\r\nx\r\n"
    )
    assert said.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
    assert said.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in said
    assert (talk.closing, talk.fault) == (True, "http_body_too_long")


def test_an_empty_body_is_none():
    talk = conversation()
    said = talk.receive(b"POST /robots.txt HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 OK")
    assert not talk.closing


def fields(count, size):
    """Return a request with `count` fields, of `size` bytes together."""
    rest = b"".join(b"X: y\r\n" for _ in range(count - 2))
    head = b"GET /robots.txt HTTP/1.1\r\n" + HOST + rest + b"Y: "
    return head + b"y" * (size - len(head) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize("step", [1, 100, 100_000])
@pytest.mark.parametrize(
    ("count", "size", "status"),
    [(40, 1000, 200), (41, 1000, 431), (1500, 14_000, 431), (2, 4096, 200), (2, 4097, 431), (2, 70_000, 431)],
)
def test_a_head_is_bounded_in_bytes_and_fields_however_it_arrives(count, size, status, step):
    talk = conversation()
    data, said = fields(count, size), b""
    assert len(data) == size
    for at in range(0, size, step):
        if not talk.closing:
            said += talk.receive(data[at : at + step])
    assert said.startswith(f"HTTP/1.1 {status} ".encode())
    assert talk.fault == (None if status == 200 else "bad_http")


def test_http_1_0_and_connection_close_end_after_the_answer():
    for request in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"):
        talk = conversation()
        assert b"Connection: close" in talk.receive(request)
        assert talk.closing


def test_no_more_than_a_few_requests_are_answered_at_once():
    request = b"GET /robots.txt HTTP/1.1\r\n" + HOST + b"\r\n"
    talk = conversation()
    for _ in range(3):
        assert (
            talk.receive(request * (http11.MAX_PIPELINED - 1)).count(b"HTTP/1.1 200 OK")
            == http11.MAX_PIPELINED - 1
        )
    assert not talk.closing
    said = talk.receive(request * 1000)
    assert said.count(b"HTTP/1.1 200 OK") == http11.MAX_PIPELINED
    assert said.count(b"Connection: close") == 1
    assert (talk.closing, talk.fault) == (True, "too_many_http_requests")


def test_the_end_of_the_stream_ends_it():
    talk = conversation()
    assert talk.receive(b"") == b""
    assert (talk.closing, talk.fault) == (True, None)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX:" + b"y" * 20_000,
    ],
)
def test_garbage_is_a_bad_request(garbage):
    talk = conversation()
    assert talk.receive(garbage).startswith(b"HTTP/1.1 4")
    assert (talk.closing, talk.fault) == (True, "bad_http")


def test_a_way_to_https_that_no_header_may_carry_is_a_bad_request():
    said = conversation(answers.answer_plain).receive(b"GET / HTTP/1.1\r\nHost: derp\xe9.example.org\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Location" not in said


def test_pages_answer_their_paths_and_what_is_below():
    def page(name):
        return lambda request: http11.Response(200, f"{name} {request.query}".encode())

    talk = conversation(
        by_path={"/metrics": page("metrics"), "/debug/": page("index"), "/debug/clients/": page("clients")}
    )
    for target, body in [
        ("/metrics?x", b"metrics x"),
        ("/debug/", b"index "),
        ("/debug/x", b"index "),
        ("/debug/clients/?all", b"clients all"),
    ]:
        assert talk.receive(f"GET {target} HTTP/1.1\r\n".encode() + HOST + b"\r\n").endswith(body)
    assert b"<h1>DERP</h1>" in talk.receive(b"GET /metrics/x HTTP/1.1\r\n" + HOST + b"\r\n")


def test_an_answer_that_takes_a_while_keeps_its_place():
    async def later():
        return http11.Response(200, b"later")

    def answer(request, pages):
        return later() if request.path == "/later" else answers.answer(request, pages)

    talk = conversation(answer)
    said = talk.receive(
        b"".join(
            b"GET /%s HTTP/1.1\r\n%s\r\n" % (path, HOST)
            for path in (b"robots.txt", b"later", b"later", b"generate_204")
        )
    )
    assert b"Disallow" in said.said
    for _ in range(2):
        with pytest.raises(StopIteration) as stop:
            said.response.send(None)
        said = talk.resume(stop.value.value)
        before = said.said if isinstance(said, http11.Later) else said
        assert before.startswith(b"HTTP/1.1 200 OK") and b"later" in before
    assert b"HTTP/1.1 204" in said
    assert not talk.closing


def test_an_answer_in_parts():
    async def endless():
        return http11.Response(200, object(), (http11.TEXT,))

    talk = conversation(lambda _request, _site: endless())
    said = talk.receive(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    with pytest.raises(StopIteration) as stop:
        said.response.send(None)
    assert b"Transfer-Encoding: chunked" in talk.stream(stop.value.value)
    assert talk.part(b"part\n") == b"5\r\npart\n\r\n"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://derp.example.org/generate_204", b"204"),
        (b"HTTPS://other.example:8443/derp/probe?x=1", b"200 OK\r\nAccess-Control-Allow-Origin"),
        (b"http://derp.example.org", b"200 OK\r\nStrict-Transport-Security"),
        (b"http://derp.example.org?x", b"200 OK\r\nStrict-Transport-Security"),
    ],
)
def test_a_target_in_absolute_form_is_its_path(target, status):
    said = conversation().receive(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert said.startswith(b"HTTP/1.1 " + status)


def test_an_upgrade_in_absolute_form_is_one():
    said = conversation().receive(
        b"GET http://x/derp HTTP/1.1\r\n" + HOST + b"Upgrade: DERP\r\n\r\nrest"
    )
    assert (said.answer, said.rest) == (v.ANSWER_101, b"rest")


def test_the_plain_listener_sends_on_to_the_host_of_an_absolute_target():
    said = conversation(answers.answer_plain).receive(
        b"GET http://y.example/z?q HTTP/1.1\r\n" + HOST + b"\r\n"
    )
    assert b"\r\nLocation: https://y.example/z?q\r\n" in said


@pytest.mark.parametrize("upgrade", ["DERP", "websocket"])
def test_the_answers_before_an_upgrade_in_one_read_are_kept(upgrade):
    page = b"GET /robots.txt HTTP/1.1\r\n" + HOST + b"\r\n"
    rest = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    rest += b"Connection: Upgrade\r\nSec-WebSocket-Protocol: derp\r\n\r\n"
    said = conversation().receive(
        page * 2 + b"GET /derp HTTP/1.1\r\n" + HOST + f"Upgrade: {upgrade}\r\n".encode() + rest + b"rest"
    )
    assert said.answer.count(b"HTTP/1.1 200 OK") == 2
    assert said.answer.count(b"HTTP/1.1 101 Switching Protocols") == 1
    assert said.answer.index(b"200 OK") < said.answer.index(b"101 Switching")
    assert (said.is_websocket, said.rest) == (upgrade == "websocket", b"rest")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/3.0", b"505 HTTP Version Not Supported"),
        (b"GET /derp HTTP/0.9", b"505 HTTP Version Not Supported"),
        (b"PRI * HTTP/2.0", b"400 Bad Request"),
    ],
)
def test_other_versions_of_http_are_refused(line, status):
    talk = conversation()
    said = talk.receive(line + b"\r\n\r\nSM\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert said.count(b"HTTP/1.1") == 1
    assert (talk.closing, talk.fault) == (True, "bad_http")


def test_one_that_expects_100_continue_has_an_answer_before_its_body():
    request = b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert conversation().receive(request % 5).startswith(b"HTTP/1.1 413 ")
    assert conversation().receive(request % 0).startswith(b"HTTP/1.1 200 ")
