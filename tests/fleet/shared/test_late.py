"""A word that comes too late finds the host gone back by itself: it is proved as it is then."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest

from engine.login import Unreachable
from engine.run import Failure, Job, Outcome, Verb
from fleet.shared import confirm, evidence
from fleet.shared.confirm import DERPER, STUCK, UNDECIDED, Confirmation
from fleet.shared.fleet import Fleet
from fleet.shared.seen import settings
from fleet.shared.verdict import Conclusion, Evidence
from inventory.docker import Docker
from inventory.errors import DerpfleetError
from inventory.model import Host
from tests.fleet.generations import HOST, Armed, generation, known, outcome
from tests.fleet.test_prover import IMAGE
from tests.fleet.test_withdraw import proof

FORMER = HOST.model_copy(update={"ports": HOST.ports.model_copy(update={"https": 8443})})
NEW = HOST.model_copy(update={"flavour": "docker", "docker": Docker(image=IMAGE)})
JOB = Job(verb=Verb.DEPLOY, plan=lambda _: ())


class Late(Armed):
    """Stands in for a session whose host has gone back by itself to generation 3."""

    def __init__(self, of: Outcome, *, astray: str = "") -> None:
        super().__init__(3)
        self._of, self._astray = of, astray
        about = {"seen": settings(FORMER), DERPER: "its own"}
        self.came_along = known(generation(3, "b", about=about))

    def _go_back(self) -> None:
        self._of.hear({"event": "going_back", "generation": 3, "ids": [], "stays": []}, {})
        if self._astray:
            self._of.astray.append(Failure(self._astray, "not healthy", ""))
        else:
            self._of.hear({"event": "back", "generation": 3}, {})

    def keep(self, words: Mapping[str, str]) -> bool:
        super().keep(words)
        self._go_back()
        return False

    def leave(self) -> None:
        super().leave()
        self._go_back()

    def back(self) -> bool:
        super().back()
        self._go_back()
        return True

    def lose(self) -> NoReturn:
        """Read what the host has sent, up to the end of the connection."""
        self._go_back()
        raise Unreachable("the connection was lost")


@dataclass
class Proofs:
    """The proofs of a run. `ok`: whether they hold. `seen`: the hosts and derpers that they ask."""

    ok: bool = True
    seen: list[tuple[Host, str]] = field(default_factory=list)

    def prove_hosts(self, _: Fleet, hosts: list[Host], *, derper: str = "", **__: object) -> Any:
        self.seen.append((hosts[0], derper))
        return {"hk1": proof("hk1", ok=self.ok)}


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> Proofs:
    found = Proofs()
    monkeypatch.setattr(evidence, "hear", lambda *_, **__: Evidence())
    monkeypatch.setattr(confirm, "prove_hosts", found.prove_hosts)
    return found


def is_as_before(judge: Confirmation, proofs: Proofs) -> bool:
    """Whether the last proof was of the former port, with the mesh key that the host has."""
    host, derper = proofs.seen[-1]
    return (judge.host, host.ports.https, derper) == (NEW, FORMER.ports.https, "its own")


@pytest.mark.parametrize(("edit", "word"), [({}, "keep"), ({"is_part": True}, "leave")])
def test_a_word_that_comes_too_late(
    fleet: Fleet, proofs: Proofs, shown: io.StringIO, edit: dict[str, Any], word: str
) -> None:
    """The proof was of the new state, and the host has another port and mesh key by then."""
    went = outcome()
    session: Any = Late(went)
    judge = Confirmation(fleet, NEW, None, **edit)
    judge(went, session)
    assert session.words[-1] == word
    assert confirm.after_going_back(fleet, NEW, JOB, went, judge) == UNDECIDED
    assert is_as_before(judge, proofs)
    assert judge.verdict is Conclusion.INCONCLUSIVE
    assert "inconclusive our word came too late, and it went back by itself" in shown.getvalue()
    assert "generation 3 is in force again, and PROVED" in shown.getvalue()
    assert "the next whole deploy confirms" not in shown.getvalue()


def test_an_unproved_plan_that_cannot_be_left_any_more(fleet: Fleet, proofs: Proofs) -> None:
    went, proofs.ok = outcome(), False
    session: Any = Late(went)
    judge = Confirmation(fleet, NEW, None, leaves=True)
    judge(went, session)
    proofs.ok = True
    assert (session.words[-1], judge.verdict) == ("leave", Conclusion.INCONCLUSIVE)
    assert confirm.after_going_back(fleet, NEW, JOB, went, judge) == UNDECIDED
    assert is_as_before(judge, proofs)


@pytest.mark.parametrize("astray", ["", "service:derpfleet-relay.service"])
def test_a_host_that_has_ended_the_session_meanwhile_is_not_lost(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, proofs: Proofs, astray: str
) -> None:
    """As after a laptop's sleep: the question finds the reports of the way back, and an end."""
    went = outcome()
    session: Any = Late(went, astray=astray)
    monkeypatch.setattr(evidence, "hear", lambda *_, **__: session.lose())
    judge = Confirmation(fleet, NEW, None)
    judge(went, session)
    code = confirm.after_going_back(fleet, NEW, JOB, went, judge)
    assert code == (STUCK if astray else UNDECIDED)
    assert is_as_before(judge, proofs)


def test_a_host_that_is_lost_before_its_report_is_lost(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, proofs: Proofs
) -> None:
    went = outcome()
    session: Any = Late(went)
    monkeypatch.setattr(session, "_go_back", lambda: None)
    monkeypatch.setattr(evidence, "hear", lambda *_, **__: session.lose())
    with pytest.raises(Unreachable):
        Confirmation(fleet, NEW, None)(went, session)


def test_a_plan_that_failed_stays_failed_however_late_the_word_is(fleet: Fleet, proofs: Proofs) -> None:
    went, proofs.ok = outcome(), False
    session: Any = Late(went)
    judge = Confirmation(fleet, NEW, None, control=lambda _: True)
    judge(went, session)
    assert (session.words[-1], judge.verdict) == ("back", Conclusion.FAILED)


def test_a_way_back_that_the_host_refuses_is_neither_old_nor_new(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, proofs: Proofs
) -> None:
    went = outcome()
    session: Any = Late(went)

    def refuse(_: object) -> NoReturn:
        went.hear({"event": "going_back", "generation": 3, "ids": [], "stays": []}, {})
        raise DerpfleetError("contents of it are gone")

    monkeypatch.setattr(session, "keep", refuse)
    with pytest.raises(DerpfleetError) as raised:
        Confirmation(fleet, NEW, None)(went, session)
    assert raised.value.exit_code == STUCK
