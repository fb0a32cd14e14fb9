"""The relay's host is asked beside the ladder, and its answer decides the proof."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.facts import Ask
from engine.login import Unreachable
from engine.report import Report
from fleet.shared import prove
from fleet.shared.fleet import Fleet
from inventory.model import Host, Region, Relay, Site
from probe.proof import LADDER, Proof, Rung
from tests.fleet.answering import AnsweringHost

STRANGER = "ab" * 32
PROVED = Proof(
    "hk1",
    "hk1.example.org",
    tuple(Rung(name, "ok", data={"stranger": STRANGER} if name == "handshake" else {}) for name in LADDER),
    1.0,
    "2026-11-22T10:00:00Z",
)


def asking(step: str, log: str, *, on_stderr: bool = False) -> AnsweringHost:
    """Return a host whose relay failed at this step of asking ("": none), and logs this."""
    return AnsweringHost(
        first={"admission": json.dumps({"step": step, "detail": "", "allow": False})},
        later={"refusal": f"other line\nkey={STRANGER} {log}\n"},
        on_stderr=on_stderr,
    )


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fleet:
    monkeypatch.setattr("fleet.shared.records.RUNS", tmp_path)
    host = Host(name="hk1", domain="hk1.example.org", region=Region(id=901, code="hk", name="Hong Kong"))
    relay = Relay(verify_client_url="https://hs1.example.org/verify")
    host = host.model_copy(update={"relay": relay})

    def climb(_: object, *, on_rung: object, **__: object) -> list[Proof]:
        for rung in PROVED.rungs:
            on_rung(_[0], rung)  # type: ignore[operator, index]  # the probe's callback
        return [PROVED]

    monkeypatch.setattr(prove, "prove", climb)
    site = Site(path=str(tmp_path / "site.yml"), hosts={"hk1": host}, known_hosts="known_hosts")
    return Fleet(site, Report())


def proved(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, session: object) -> Proof:
    def connect(*_: object) -> object:
        if isinstance(session, Exception):
            raise session
        return session

    monkeypatch.setattr(fleet, "session_for_reading", connect)
    hosts = list(fleet.site.hosts.values())
    [proof] = prove.climb(fleet, hosts, prove.targets(fleet, hosts))
    return proof


def test_a_clear_answer_proves(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    session = asking("", "reason=verify_url_refused")
    proof = proved(fleet, monkeypatch, session)
    assert proof.ok and proof["admission"].status == "ok"
    assert any(STRANGER in " ".join(argv) for ask in session.asked for argv in ask.commands.values())


@pytest.mark.parametrize(
    "session",
    [
        asking("connection", ""),
        asking("", "reason=verify_url_unreachable"),
        asking("", "reason=verify_url_unreachable", on_stderr=True),  # as `docker logs` prints derper's
        Unreachable("no answer"),
    ],
)
def test_no_answer_is_no_proof(session: object, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = proved(fleet, monkeypatch, session)
    assert not proof.ok
    assert proof.failed_rung is not None and proof.failed_rung.name == "admission"


def test_an_open_session_is_asked_in_place_of_a_new_one(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> object:
        raise AssertionError("a session was opened")

    monkeypatch.setattr(fleet, "session_for_reading", refused)
    session: Any = asking("", "reason=verify_url_refused")
    hosts = list(fleet.site.hosts.values())
    [proof] = prove.climb(fleet, hosts, prove.targets(fleet, hosts), session=session)
    assert proof.ok and proof["admission"].status == "ok"
    assert [list(ask.commands) for ask in session.asked] == [["admission", "refusal"]], "in one turn"


def test_an_open_session_is_free_again_after_the_proof(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rung after the handshake may break the ladder while the answer is under way."""
    session: Any = asking("", "")
    at_work, answer, climb = [False], session.ask, prove.prove

    def slow(ask: Ask) -> object:
        at_work[0] = True
        time.sleep(0.2)
        at_work[0] = False
        return answer(ask)

    def interrupted(*arguments: Any, **more: Any) -> list[Proof]:
        climb(*arguments, **more)
        raise KeyboardInterrupt

    session.ask = slow
    monkeypatch.setattr(prove, "prove", interrupted)
    hosts = list(fleet.site.hosts.values())
    with pytest.raises(KeyboardInterrupt):
        prove.climb(fleet, hosts, prove.targets(fleet, hosts), session=session)
    assert len(session.asked) == 1 and not at_work[0]


def test_an_open_session_is_not_asked_when_the_handshake_fails(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = replace(PROVED, rungs=tuple(Rung(name, "failed") for name in LADDER))
    monkeypatch.setattr(prove, "prove", lambda *_, **__: [failed])
    session: Any = asking("", "")
    hosts = list(fleet.site.hosts.values())
    assert prove.climb(fleet, hosts, prove.targets(fleet, hosts), session=session) == [failed]
    assert session.asked == []
