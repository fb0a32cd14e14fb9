"""A proof that had no answer asks the relay's host which packets arrive; another asks nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from engine.facts import Ask, Facts
from engine.login import Unreachable
from engine.report import Report
from fleet.shared.count_arrivals import with_arrivals
from fleet.shared.fleet import Fleet
from fleet.shared.parts import deploy_part
from inventory.model import Firewall, Host, Region, Site
from probe.proof import LADDER, Proof, Rung
from probe.target import Part, Target
from tests.fleet.answering import AnsweringHost

HOST = Host(name="hk1", domain="hk1.example.org", region=Region(id=901, code="hk", name="Hong Kong"))
TARGET = Target(name="hk1", domain="hk1.example.org", deploy=lambda part: f"deploy {part.name}")
STUN = Rung(
    "stun4", "failed", cause="?", data={"unanswered": {"proto": "udp", "address": "127.0.0.1", "port": 9}}
)


class CountingHost(AnsweringHost):
    """A host that prints this after it has counted."""

    def __init__(self, printed: str) -> None:
        super().__init__(later={"arrivals": printed})

    def ask(self, ask: Ask) -> Facts:
        time.sleep(0.1)
        return super().ask(ask)


def proof(stun: Rung) -> Proof:
    rungs = tuple(stun if name == "stun4" else Rung(name, "ok") for name in LADDER)
    return Proof("hk1", "hk1.example.org", rungs, 1.0, "2026-11-22T10:00:00Z")


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fleet:
    monkeypatch.setattr("fleet.shared.records.RUNS", tmp_path)
    return Fleet(Site(path=str(tmp_path / "site.yml"), hosts={"hk1": HOST}, known_hosts="none"), Report())


@pytest.mark.parametrize(
    ("arrived", "cause"), [(0, "no packet arrives at the host"), (3, "the host's own firewall drops it (3")]
)
def test_the_host_is_asked_once(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, arrived: int, cause: str
) -> None:
    host = CountingHost(json.dumps({"udp/4/9": [arrived, 0]}))
    monkeypatch.setattr(fleet, "session_for_reading", lambda *_: host)
    assert cause in with_arrivals(fleet, HOST, TARGET, proof(STUN))["stun4"].cause
    (ask,) = host.asked
    assert ask.commands["arrivals"][-1] == "udp/4/9"


def test_a_proof_with_every_answer_asks_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "session_for_reading", None)
    for rung in (Rung("stun4", "ok"), Rung("stun4", "failed", cause="nothing listens")):
        assert with_arrivals(fleet, HOST, TARGET, proof(rung)) == proof(rung)


def test_a_host_that_cannot_say_changes_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    for printed in ("", "Traceback", '{"udp/4/9": 3}'):
        monkeypatch.setattr(fleet, "session_for_reading", lambda *_, printed=printed: CountingHost(printed))
        assert with_arrivals(fleet, HOST, TARGET, proof(STUN)) == proof(STUN)

    def unreachable(*_: object) -> CountingHost:
        raise Unreachable("no connection")

    monkeypatch.setattr(fleet, "session_for_reading", unreachable)
    assert with_arrivals(fleet, HOST, TARGET, proof(STUN)) == proof(STUN)


def test_a_firewall_that_we_leave_alone_is_not_deployed() -> None:
    assert deploy_part(HOST, Part.FIREWALL) == "invoke deploy --host hk1 --only role:firewall"
    off = HOST.model_copy(update={"firewall": Firewall(mode="off")})
    assert deploy_part(off, Part.FIREWALL) == (
        "set hosts.hk1.firewall.mode to auto, then invoke deploy --host hk1"
    )
