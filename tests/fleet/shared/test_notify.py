"""The webhook: one JSON object, bounded, no redirect, and its URL in no output."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.report import Report
from fleet.shared import notify, web
from fleet.shared.fleet import Fleet
from fleet.shared.notify import CannotNotify
from inventory.secrets import SecretError
from probe.alerts import Seen
from tests.control.test_headscale import SITE, site_of

BROKEN, WELL = Seen("hk1", ok=False, words="BROKEN: TLS"), Seen("hk1", ok=True, words="proved")


class Hook(BaseHTTPRequestHandler):
    """A webhook. `status`: its answer. `bodies`: what it was sent. `sleeps`: before it answers."""

    status, bodies, sleeps = 200, list[Any](), 0.0

    def do_POST(self) -> None:
        Hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        time.sleep(Hook.sleeps)
        self.send_response(Hook.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    Hook.status, Hook.bodies, Hook.sleeps = 200, [], 0.0
    monkeypatch.setattr(Fleet, "runs", tmp_path)
    site = site_of(f"{SITE}notify: {{url: 'env:HOOK', after: 1}}\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{serving.server_port}/T0/secret")
        yield Fleet(site, Report(console=Console(file=io.StringIO(), width=400)))
        serving.shutdown()


def test_one_object_for_all_alerts_with_a_text(fleet: Fleet) -> None:
    notify.notify(fleet, [BROKEN, Seen("sg1", ok=True, words="proved")])
    [said] = Hook.bodies
    assert said == {
        "site": "ours.yml",
        "alerts": [{"host": "hk1", "ok": False, "words": "BROKEN: TLS", "repeats": False}],
        "text": "ours.yml: hk1 is BROKEN: TLS",
    }


def test_it_is_remembered_between_commands(fleet: Fleet) -> None:
    told = [len(notify.notify(fleet, [one])) for one in (BROKEN, BROKEN, WELL, WELL)]
    assert told == [1, 0, 1, 0]
    assert len(Hook.bodies) == 2


@pytest.mark.parametrize("status", [302, 307, 404, 500])
def test_one_that_refuses_is_asked_again_by_the_next_look(fleet: Fleet, status: int) -> None:
    Hook.status = status
    with pytest.raises(CannotNotify, match="the webhook refused") as refused:
        notify.notify(fleet, [BROKEN])
    assert refused.value.why == f"HTTP {status}"
    assert len(Hook.bodies) == 1  # no redirect was followed
    Hook.status = 200
    assert len(notify.notify(fleet, [BROKEN])) == 1


def test_one_that_does_not_answer_costs_a_bounded_time(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hook.sleeps = 3.0
    monkeypatch.setattr(web, "TIMEOUT_S", 0.3)
    began = time.monotonic()
    with pytest.raises(CannotNotify, match="the webhook does not answer"):
        notify.notify(fleet, [BROKEN])
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:1/T0/secret", "refused"),
        ("http://hooks.example.org/T0/secret", "env:HOOK is http"),
    ],
)
def test_no_word_of_an_error_has_the_url(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, url: str, why: str
) -> None:
    monkeypatch.setenv("HOOK", url)
    with pytest.raises(CannotNotify) as refused:
        notify.notify(fleet, [BROKEN])
    error = refused.value
    words = f"{error.what} {error.where} {error.why} {error.next}"
    assert why in words
    assert "T0" not in words


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "https://user:T0@hooks.example.org/", "https://127.0.0.1/T0\x7f"]
)
def test_a_reference_that_leads_to_no_url_is_a_wrong_secret(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HOOK", url)
    with pytest.raises(SecretError) as refused:
        notify.notify(fleet, [BROKEN])
    error = refused.value
    assert "T0" not in f"{error.what} {error.where} {error.why} {error.next}"


def test_a_memory_that_cannot_be_read_is_a_new_one(fleet: Fleet) -> None:
    (fleet.runs / "alerts.json").write_text("[1, 2")
    assert len(notify.notify(fleet, [BROKEN])) == 1
    (fleet.runs / "alerts.json").write_text('{"hk1": 3}')
    assert len(notify.notify(fleet, [BROKEN])) == 1


def test_a_site_without_a_webhook_says_so(fleet: Fleet) -> None:
    fleet.site = site_of()
    with pytest.raises(CannotNotify, match="nobody can be notified"):
        notify.notify(fleet, [BROKEN])
