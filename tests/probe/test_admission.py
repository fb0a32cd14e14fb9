"""A stranger who is refused because nobody could be asked is no stranger refused."""

from __future__ import annotations

import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.shared.parts import deploy_part
from probe.admission import HostsWords, admission_rung
from probe.proof import Rung
from probe.target import Target
from relay.core.reasons import Answer
from tests.probe.servers import HK1

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
