"""Questions over https: what is bounded, and what is never sent elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from control.web import NoWebAnswer, WebQuestion
from fleet.shared import web
from inventory.secrets import Secret


class Peculiar(BaseHTTPRequestHandler):
    """A server with a peculiar answer for each path."""

    seen: ClassVar[list[tuple[str, str | None, bytes]]] = []

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.path, self.headers.get("Authorization"), body))
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
        elif self.path == "/refused":
            self.send_response(403, "No")
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "10")
        elif self.path == "/nonsense":
            self.wfile.write(b"nonsense\r\n\r\n")
            return
        else:
            self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * 300 if self.path == "/long" else b"body")

    do_POST = do_GET


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(web, "SIZE_MAX", 200)
    Peculiar.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Peculiar)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_answer_with_any_status(url: str) -> None:
    headers = {"Authorization": Secret("Bearer key")}
    answer = web.fetch(WebQuestion(url=f"{url}/x", method="POST", headers=headers, body=Secret("s=1")))
    assert (answer.status, answer.body) == (200, b"body")
    assert Peculiar.seen == [("/x", "Bearer key", b"s=1")]
    refused = web.fetch(WebQuestion(url=f"{url}/refused"))
    assert (refused.status, refused.body) == (403, b"body")


def test_a_redirect_gets_no_key(url: str) -> None:
    answer = web.fetch(WebQuestion(url=f"{url}/redirect", headers={"Authorization": Secret("Bearer key")}))
    assert (answer.status, answer.headers["location"]) == (302, "/elsewhere")
    assert [path for path, *_ in Peculiar.seen] == ["/redirect"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/long", "the answer is longer than"),
        ("/short", "the answer ends 6 bytes early"),
        ("/nonsense", "nonsense"),
    ],
)
def test_an_answer_that_is_not_whole(url: str, path: str, words: str) -> None:
    with pytest.raises(NoWebAnswer) as caught:
        web.fetch(WebQuestion(url=f"{url}{path}", headers={"Authorization": Secret("Bearer key")}))
    assert words in caught.value.why and "key" not in str(vars(caught.value))


def test_an_answer_that_drips(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "WHOLE_S", -1)
    with pytest.raises(NoWebAnswer, match="did not answer") as caught:
        web.fetch(WebQuestion(url=f"{url}/x"))
    assert "is not whole after" in caught.value.why
