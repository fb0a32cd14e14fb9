"""`invoke rollback` and `invoke history`: which generation is meant, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from engine.generations import Generation, History, Stored, UnconfirmedChanges
from engine.plan import compile_plan
from engine.report import Report
from engine.run import Job, Outcome, Verb
from engine.session import Session
from fleet import history, rollback
from fleet.rollback import NoGeneration, SiteDiffers
from fleet.shared import confirm, prove, step
from fleet.shared.confirm import STUCK, TAKEN_BACK, UNDECIDED, Confirmation
from fleet.shared.fleet import Fleet
from fleet.shared.seen import former, settings
from fleet.shared.verdict import Conclusion
from inventory.errors import DerpfleetError
from inventory.model import Docker, Host
from probe.proof import Proof
from tests.fleet.test_prover import IMAGE
from tests.fleet.test_withdraw import proof
from tests.roles.cases import load

HOST, SITE, _ = load("bare")
LEFT = UnconfirmedChanges(plan="sha256:x", who="bob@desk", verb="deploy", since=1.0)


def generation(number: int, plan: str, **more: Any) -> Generation:
    about = more.pop("about", {"release": f"relay {plan}", "seen": settings(HOST)})
    return Generation(number=number, plan=plan, who="ann@desk", verb="deploy", about=about, **more)


def known(*generations: Generation, left: UnconfirmedChanges | None = None) -> History:
    return History(generations=generations, unconfirmed=left or UnconfirmedChanges())


KNOWN = known(generation(3, "b"), generation(2, "b"), generation(1, "a"))


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def fleet(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fleet:
    monkeypatch.setattr("fleet.shared.records.RUNS", tmp_path)
    return Fleet(SITE, Report(console=Console(file=shown, width=400)))


def stored(fleet: Fleet, history: History, to: str = "", host: Host = HOST) -> int:
    session: Any = SimpleNamespace(history=lambda: history)
    return rollback._plan(fleet, host, to, False, session).number


def test_one_back_is_the_last_state_that_was_another(fleet: Fleet, shown: io.StringIO) -> None:
    assert stored(fleet, KNOWN) == 1
    assert "generation 3 (" in shown.getvalue() and "→ 1 (" in shown.getvalue()
    assert stored(fleet, KNOWN, "2") == 2


def test_unconfirmed_changes_are_taken_back_first(fleet: Fleet) -> None:
    assert stored(fleet, known(generation(3, "b"), generation(1, "a"), left=LEFT)) == 3


@pytest.mark.parametrize(
    ("history", "to", "what", "why"),
    [
        (KNOWN, "7", "no generation 7", "in force now: generation 3 ("),
        (known(generation(1, "a")), "", "no generation to go back to", "in force now: generation 1 ("),
        (known(), "", "no generation to go back to", "no generation at all"),
        (known(generation(2, "b"), Generation(number=1, trouble="made by a newer derpfleet")), "1",
         "made by a newer derpfleet", "in force now: generation 2"),
    ],
)  # fmt: skip
def test_an_unknown_generation_is_refused_with_what_is_in_force(
    fleet: Fleet, history: History, to: str, what: str, why: str
) -> None:
    with pytest.raises(NoGeneration, match=what) as refused:
        stored(fleet, history, to)
    assert why in refused.value.why
    assert "invoke history --host hk1" in refused.value.next


def test_a_generation_of_other_ports_needs_the_site_file_of_then(fleet: Fleet) -> None:
    moved = HOST.model_copy(update={"ports": HOST.ports.model_copy(update={"https": 8443})})
    other = known(generation(2, "b"), generation(1, "a", about={"seen": settings(moved)}))
    with pytest.raises(SiteDiffers) as refused:
        stored(fleet, other)
    assert "hosts.hk1.ports.https was 8443, and is 443" in refused.value.why
    assert stored(fleet, other, host=moved) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ports": 1}', '{"relay": {}, "ports": {"https": "x"}}'])
def test_settings_that_make_no_sense_are_those_of_the_site_file(text: str) -> None:
    assert former(HOST, text) == HOST


def test_no_command_of_a_host_gets_into_the_site() -> None:
    """A host may report anything; a reference may be a command, which the controller would run."""
    evil = '{"relay": {}, "certificate": {"key": "cmd:evil"}, "ssh": {"sudo_password": "cmd:evil"}}'
    assert former(HOST, evil) == HOST


class Armed:
    """Stands in for a session with an armed plan. `words`: those that it was told."""

    def __init__(self, generation: int) -> None:
        """The generation to go back to."""
        self.generation, self.is_stopping = generation, False
        self.words: list[str] = []

    def history(self) -> History:
        return KNOWN

    def hold(self) -> None:
        self.words.append("hold")

    def keep(self, _: Mapping[str, str]) -> bool:
        self.words.append("keep")
        return True

    def back(self) -> bool:
        self.words.append("back")
        return True

    def leave(self) -> None:
        self.words.append("leave")


@pytest.mark.parametrize(
    ("generation", "oks", "leaves", "words", "verdict"),
    [
        (3, [True], False, ["hold", "keep"], Conclusion.PROVED),
        (3, [False, True], False, ["hold", "hold", "keep"], Conclusion.PROVED),
        # The broken rung is TCP, and there is no control.
        (3, [False] * 3, False, ["hold"] * 3 + ["back"], Conclusion.INCONCLUSIVE),
        (3, [False] * 3, True, ["hold"] * 3 + ["leave"], Conclusion.INCONCLUSIVE),
        (0, [False], False, ["hold", "leave"], None),
        (0, [True], False, ["hold", "keep"], Conclusion.PROVED),
    ],
)
def test_only_a_proof_keeps_a_plan(
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    generation: int,
    oks: list[bool],
    leaves: bool,
    words: list[str],
    verdict: Conclusion | None,
) -> None:
    left = list(oks)
    monkeypatch.setattr(confirm, "PAUSE_S", 0)
    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=left.pop(0))})
    armed: Any = Armed(generation)
    judge = Confirmation(fleet, HOST, None, leaves=leaves)
    judge(outcome(), armed)
    assert (armed.words, judge.verdict, left) == (words, verdict, [])


@pytest.mark.parametrize(("oks", "word"), [([True], "leave"), ([False] * 3, "back")])
def test_a_part_of_a_plan_stays_when_it_is_proved_and_becomes_no_generation(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, oks: list[bool], word: str
) -> None:
    left = list(oks)
    monkeypatch.setattr(confirm, "PAUSE_S", 0)
    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=left.pop(0))})
    armed: Any = Armed(3)
    Confirmation(fleet, HOST, None, is_part=True)(outcome(), armed)
    assert armed.words[-1] == word


def test_a_resource_that_failed_is_taken_back_without_a_proof(fleet: Fleet) -> None:
    armed: Any = Armed(3)
    failed = outcome()
    failed.stopped = "stopped by the controller"
    Confirmation(fleet, HOST, None)(failed, armed)
    assert armed.words == ["back"]


THREE = IMAGE.replace("1", "3")
DERPER = HOST.model_copy(update={"flavour": "docker", "docker": Docker(image=IMAGE)})


def test_a_generation_says_whose_mesh_key_the_host_has() -> None:
    plan = compile_plan([], mode="apply")
    assert confirm.about(DERPER, plan)[confirm.DERPER] == IMAGE
    assert confirm.DERPER not in confirm.about(HOST, plan)


def test_a_host_that_went_back_is_proved_with_the_mesh_key_that_it_has(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The site file names an image by then that the host never had."""
    edited = DERPER.model_copy(update={"docker": Docker(image=THREE)})
    asked: list[str] = []

    def prove_hosts(*_: object, derper: str, **__: object) -> dict[str, Proof]:
        asked.append(derper)
        return {"hk1": proof("hk1", ok=True)}

    monkeypatch.setattr(confirm, "prove_hosts", prove_hosts)
    armed: Any = Armed(3)
    armed.history = lambda: known(of_derper(3, "one"), of_derper(2, "two"))
    failed, judge = outcome(generation=3), Confirmation(fleet, DERPER, None)
    failed.stopped = "stopped by the controller"
    judge(failed, armed)
    job = Job(verb=Verb.DEPLOY, plan=lambda _: ())
    assert confirm.after_going_back(fleet, DERPER, job, failed, judge) == TAKEN_BACK
    assert (armed.words, asked) == (["back"], ["one"])
    # Later verbs prove it so as well, until the site file names another derper or a deploy is kept.
    assert mesh_key(fleet, DERPER) == mesh_key_of(fleet, "one")
    assert mesh_key(fleet, edited) == mesh_key_of(fleet, THREE)
    Confirmation(fleet, DERPER, None)(outcome(), armed)
    assert mesh_key(fleet, DERPER) == mesh_key_of(fleet, IMAGE)


def mesh_key(fleet: Fleet, host: Host) -> str:
    """Return the key with which `invoke verify` asks."""
    [target] = prove.targets(fleet, [host])
    assert target.prover and target.prover.mesh_key
    return target.prover.mesh_key.reveal()


def mesh_key_of(fleet: Fleet, derper: str) -> str:
    found = fleet.prover.at("hk1", derper).mesh_key
    assert found
    return found.reveal()


def of_derper(number: int, derper: str) -> Generation:
    about = {"seen": settings(HOST)} | ({confirm.DERPER: derper} if derper else {})
    return generation(number, f"plan {number}", about=about)


@pytest.mark.parametrize(
    ("history", "to", "derper"),
    [
        (known(of_derper(2, "two"), of_derper(1, "one")), "1", "two"),
        (known(of_derper(2, "two"), of_derper(1, "one"), left=LEFT), "", "two"),
        (known(of_derper(2, "two"), of_derper(1, "one"), left=LEFT), "1", "two"),
        (known(of_derper(2, ""), of_derper(1, "")), "1", ""),
    ],
)
def test_a_mesh_key_stays_as_it_was_confirmed_last(
    fleet: Fleet, history: History, to: str, derper: str
) -> None:
    judge = Confirmation(fleet, HOST, None)
    session: Any = SimpleNamespace(history=lambda: history)
    job = rollback._job(fleet, judge, to, Verb.ROLLBACK, force=False)
    kept = job.plan(session)
    assert isinstance(kept, Stored)
    assert (judge.derper, kept.about[confirm.DERPER]) == (derper, derper)


def outcome(**more: Any) -> Outcome:
    facts: Any = None
    return Outcome("hk1", "apply", {}, facts, Path("log"), **more)


@pytest.mark.parametrize(
    ("generation", "ok", "verdict", "code"),
    [
        (3, True, Conclusion.FAILED, TAKEN_BACK),
        (3, True, None, TAKEN_BACK),
        (3, True, Conclusion.INCONCLUSIVE, UNDECIDED),
        (3, False, Conclusion.FAILED, STUCK),
        (0, True, Conclusion.FAILED, STUCK),
    ],
)
def test_the_way_back_is_proved_before_it_is_said(
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    generation: int,
    ok: bool,
    verdict: Conclusion | None,
    code: int,
) -> None:
    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=ok)})
    judge = Confirmation(fleet, HOST, None, verdict=verdict)
    job = Job(verb=Verb.DEPLOY, plan=lambda _: ())
    assert confirm.after_going_back(fleet, HOST, job, outcome(generation=generation), judge) == code


def test_history_shows_generations_and_what_nobody_confirmed(
    fleet: Fleet, shown: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reading:
        def __enter__(self) -> Any:
            return SimpleNamespace(history=lambda: known(*KNOWN.generations, left=LEFT))

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(Fleet, "session_for_reading", lambda *_: Reading())
    assert history.history(fleet, [HOST]) == 0
    text = shown.getvalue()
    assert "bob@desk  deploy confirms it, rollback takes it back" in text
    assert "relay b" in text and "in force" not in text


def test_a_host_that_cannot_be_asked_has_its_own_error(
    fleet: Fleet, shown: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Session:
        raise DerpfleetError("no connection")

    monkeypatch.setattr(Fleet, "session_for_reading", fail)
    assert history.history(fleet, [HOST]) == 1
    assert "no connection" in shown.getvalue()


def test_a_number_that_is_none_is_refused(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "converge", lambda *_, **__: pytest.fail("nothing may run"))
    with pytest.raises(DerpfleetError, match="--to takes a number"):
        rollback.rollback(fleet, HOST, to="yesterday", dry_run=False, force=False)
