"""A stranger who is refused because nobody could be asked is no stranger refused."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.shared.parts import deploy_part
from probe.admission import HostsWords, admission_rung
from probe.proof import Rung
from probe.target import Target
from relay.core.reasons import Answer
from tests.probe.servers import HK1, LOOPBACK, backend

URL = "https://hs1.example.org/verify"
TARGET = Target(name="hk1", domain="hk1.example.org", deploy=partial(deploy_part, HK1))
REFUSES = json.dumps({"step": "", "detail": "", "allow": False, "ms": 12.5, "clock": 1.8e9})


def rung(answer: object = None, log: str = "", trouble: str = "") -> Rung:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return admission_rung(TARGET, HostsWords(judge=URL, answer=text, log=log, trouble=trouble))


@pytest.mark.parametrize(
    ("step", "cause", "command"),
    [
        ("name", "cannot resolve", "getent hosts hs1.example.org"),
        ("connection", "packet filter", f"curl -v {URL}"),
        ("TLS", "does not trust the certificate", f"curl -v {URL}"),
        ("time", "hangs", f"curl -v {URL}"),
        ("status", "does not answer the question", f"curl -v -d {{}} {URL}"),
        ("answer", "another site", f"curl -v -d {{}} {URL}"),
        ("socket", "no tailscaled answers", "systemctl status tailscaled"),
        ("login", "logged out", f"tailscale --socket={URL} status"),
    ],
)
def test_each_step_that_fails_is_named(step: str, cause: str, command: str) -> None:
    broken = rung({"step": step, "detail": "so it was", "ms": 3})
    assert broken.status == "failed"
    assert f"{step}: so it was" in broken.detail
    assert cause in broken.cause and "refuses everybody" in broken.cause
    assert broken.next == f"on the relay's host: {command}; then invoke verify --host hk1"


def test_a_clear_refusal_holds() -> None:
    holds = rung(REFUSES)
    assert (holds.status, holds.ms, holds.warning) == ("ok", 12.5, "")


@pytest.mark.parametrize("log", ["reason=verify_url_timeout", '"DERP_REASON":"verify_url_unreachable"'])
def test_the_relays_own_reason_counts_though_its_host_gets_an_answer(log: str) -> None:
    """IPv6 goes nowhere: the host's other programs try IPv4 next, and the relay does not."""
    broken = rung({"step": "", "detail": "2001:db8::1 port 443: timed out", "allow": False}, log)
    assert broken.status == "failed"
    assert "because it got no answer: verify_url_" in broken.detail
    assert "2001:db8::1" in broken.cause


def test_a_refusal_after_a_clear_answer_is_one() -> None:
    assert rung(REFUSES, f"reason={Answer.VERIFY_URL_REFUSED}").status == "ok"


@contextmanager
def controller(status: int) -> Iterator[str]:
    """Run an admission controller that knows nobody, and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b'{"Allow": false}')

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer((LOOPBACK, 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/verify"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("answers", "status"), [(200, "ok"), (503, "failed"), (None, "failed")])
def test_the_words_that_each_program_writes(
    answers: int | None, status: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    """A real relay refuses a stranger, with an answer and for want of one."""
    with controller(answers or 200) as url:
        asked = url if answers else f"http://{LOOPBACK}:9/verify"
        flags = ("-verify-client-url", asked, "-verify-client-url-fail-open=false")
        with backend(command, tmp_path, *flags) as running:
            place = f"http://{LOOPBACK}:{running.port}"
            argv = [sys.executable, "-m", "relay.selftest", place, "-stun-port", "0"]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert "the relay hung up" in done.stderr
    assert rung(REFUSES, (tmp_path / "relay.log").read_text()).status == status


DERPER = "2026/11/29 15:10:00 derp: 203.0.113.7:40100: client nodekey:" + "ab" * 32 + " rejected: "


@pytest.mark.parametrize(
    "why",
    [
        f'Post "{URL}": dial tcp 203.0.113.9:443: connect: connection refused',
        f'Post "{URL}": context deadline exceeded',
        "admission controller: 503 Service Unavailable",
        "invalid character '<' looking for beginning of value",
        "failed to query local tailscaled status for nodekey:" + "ab" * 32 + ": no such file",
    ],
)
def test_derpers_reason_counts_as_well(why: str) -> None:
    broken = rung(REFUSES, f"other line\n{DERPER}{why}\n")
    assert broken.status == "failed"
    assert f"because it got no answer: {why}"[:100] in broken.detail


@pytest.mark.parametrize(
    "why",
    [
        "admission controller: nodekey:" + "ab" * 32 + "/203.0.113.7 not allowed",
        "peer nodekey:" + "ab" * 32 + " not authorized (not found in local tailscaled)",
    ],
)
def test_a_clear_refusal_by_derper_is_one(why: str) -> None:
    assert rung(REFUSES, f"{DERPER}{why}\n").status == "ok"


def test_an_address_that_does_not_work_is_a_warning() -> None:
    assert "2001:db8::1" in rung({"step": "", "detail": "2001:db8::1: timed out", "allow": False}).warning


def test_a_controller_that_admits_everybody() -> None:
    assert "made up a moment ago" in rung({"step": "", "allow": True}).detail


def test_a_tailscaled_that_will_refuse_everybody_is_a_warning() -> None:
    knows = {"step": "", "detail": "", "allow": False, "peers": 2, "key_left_s": 90 * 86400.0}
    assert rung(knows).warning == ""
    assert "policy" in rung(knows | {"peers": 0}).warning
    assert "expires in 3 days" in rung(knows | {"key_left_s": 3 * 86400.0}).warning


def test_a_host_that_cannot_be_asked_proves_nothing() -> None:
    broken = rung(trouble="login refused")
    assert broken.status == "failed" and "login refused" in broken.detail


FIELDS = ["step", "detail", "allow", "ms", "peers", "key_left_s"]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner),
)


@given(JSON, st.text(max_size=40))
def test_whatever_a_host_says_is_judged(answer: object, log: str) -> None:
    found = rung(answer, log)
    assert found.status in {"ok", "failed"}
    assert found.detail.isprintable()
    json.dumps(found.ms, allow_nan=False)
