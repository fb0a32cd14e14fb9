"""A plan is kept, left or taken back by its proofs and by what the host says."""

from __future__ import annotations

import io
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from engine.facts import Ask, Facts, Output
from engine.generations import Generation, History, Outline, Stored
from engine.plan import compile_plan
from engine.run import Failure, Job, Outcome, Verb
from fleet import rollback
from fleet.shared import confirm, evidence, held, prove, seen
from fleet.shared.bring_back import way_back
from fleet.shared.confirm import STUCK, TAKEN_BACK, UNDECIDED, Confirmation
from fleet.shared.fleet import Fleet
from fleet.shared.seen import settings
from fleet.shared.verdict import Conclusion, Evidence
from inventory.docker import Docker
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.admission import HostsWords
from probe.net import Patience
from probe.proof import LADDER, Proof, Rung, Status
from tests.fleet.generations import HOST, KNOWN, LEFT, Armed, generation, known, outcome
from tests.fleet.test_prover import IMAGE
from tests.fleet.test_withdraw import proof
from tests.support.facts import DEBIAN_12


@pytest.mark.parametrize(
    ("generation", "oks", "leaves", "words", "verdict"),
    [
        (3, [True], False, ["hold", "keep"], Conclusion.PROVED),
        (3, [False, True], False, ["hold", "hold", "keep"], Conclusion.PROVED),
        # The broken rung is TCP, and there is no control.
        (3, [False] * 12, False, ["hold"] * 12 + ["back"], Conclusion.INCONCLUSIVE),
        (3, [False] * 3, True, ["hold"] * 3 + ["leave"], None),
        (3, [False] * 5 + [True], False, ["hold"] * 6 + ["keep"], Conclusion.PROVED),
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
    monkeypatch.setattr(evidence, "hear", lambda *_, **__: Evidence())
    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=left.pop(0))})
    armed: Any = Armed(generation)
    judge = Confirmation(fleet, HOST, None, leaves=leaves)
    judge(outcome(), armed)
    assert (armed.words, judge.verdict, left) == (words, verdict, [])


@pytest.mark.parametrize(
    ("oks", "words"), [([True], ["hold", "leave"]), ([False] * 12, ["hold"] * 12 + ["back"])]
)
def test_a_part_of_a_plan_stays_when_it_is_proved_and_becomes_no_generation(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, oks: list[bool], words: list[str]
) -> None:
    left = list(oks)
    monkeypatch.setattr(evidence, "hear", lambda *_, **__: Evidence())
    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=left.pop(0))})
    armed: Any = Armed(3)
    Confirmation(fleet, HOST, None, is_part=True)(outcome(), armed)
    assert armed.words == words


@pytest.mark.parametrize(
    ("oks", "said", "asked"),
    [([True], [True], 0), ([True], [False], 1), ([False, True], [True, False], 1)],
)
def test_a_host_that_said_all_beside_the_last_proof_is_not_asked_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, oks: list[bool], said: list[bool], asked: int
) -> None:
    """An answer costs a turn."""
    left, answers, heard = list(oks), list(said), list[str]()

    def hear(*_: object, **__: object) -> Evidence:
        heard.append("hear")
        return Evidence()

    monkeypatch.setattr(evidence, "is_all_said", lambda *_: answers.pop(0))
    monkeypatch.setattr(evidence, "hear", hear)
    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=left.pop(0))})
    armed: Any = Armed(3)
    Confirmation(fleet, HOST, None)(outcome(), armed)
    assert (len(heard), armed.words[-1]) == (asked, "keep")


def test_an_objection_of_the_host_takes_a_proved_plan_back(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    monkeypatch.setattr(evidence, "hear", lambda *_, **__: Evidence(other_release="old"))
    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=True)})
    armed: Any = Armed(3)
    judge = Confirmation(fleet, HOST, None)
    judge(outcome(), armed)
    assert (armed.words, judge.verdict) == (["hold", "back"], Conclusion.FAILED)
    assert "FAILED       another release answers: old  · 1 try\n" in shown.getvalue()


@pytest.mark.parametrize("after", [False, True])
def test_a_host_that_was_broken_before_is_kept_whatever_it_says(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(evidence, "hear", lambda *_, **__: Evidence(other_release="old"))
    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=after)})
    armed: Any = Armed(3)
    judge = Confirmation(fleet, HOST, None, before=proof("hk1", ok=False))
    judge(outcome(), armed)
    assert armed.words[-1] == "keep"
    assert judge.verdict is (Conclusion.PROVED if after else Conclusion.STILL_BROKEN)


class Before:
    """Stands in for a session before the changes. `asked`: how often for the history."""

    def __init__(self, history: History, *, runs: bool) -> None:
        page = {"clients_before": Output(status=0, stdout="derp_clients_local 1", stderr="")}
        self.facts = replace(DEBIAN_12, commands=page if runs else {}, listening=())
        self._history, self.asked = history, 0
        self.newest = Outline(generation=history.newest, contents=frozenset())

    def history(self) -> History:
        self.asked += 1
        return self._history


@pytest.mark.parametrize(
    ("runs", "ok", "history", "asked", "proofs"),
    [
        (True, True, KNOWN, 0, [443]),
        (True, False, KNOWN, 1, [443, 8443]),  # the site file has another port since
        (False, True, KNOWN, 1, [8443]),
        (False, True, known(), 0, []),  # a bare host
        (True, False, known(), 0, [443]),
        (True, False, known(left=LEFT), 1, [443]),  # not as a generation has it
    ],
)
def test_the_proof_from_before_is_of_the_relay_as_it_was(
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    runs: bool,
    ok: bool,
    history: History,
    asked: int,
    proofs: list[int],
) -> None:
    moved = HOST.model_copy(update={"ports": HOST.ports.model_copy(update={"https": 8443})})
    if history.generations or history.unconfirmed.plan:
        left = history.unconfirmed
        about = {"seen": settings(moved), seen.DERPER: "its own"}
        history = known(generation(3, "b", about=about), left=left)
    ports: list[int] = []
    derpers: list[str] = []

    def prove_now(_: Fleet, host: Host, *, derper: str = "", **__: object) -> Proof:
        ports.append(host.ports.https)
        derpers.append(derper)
        return proof("hk1", ok=ok)

    def with_words(_: Fleet, __: Host, found: Proof, ___: object, *, derper: str = "") -> Proof:
        derpers.append(derper)
        return found

    monkeypatch.setattr(confirm, "prove_quietly", prove_now)
    monkeypatch.setattr(confirm, "with_words", with_words)
    session: Any = Before(history, runs=runs)
    judge = Confirmation(fleet, HOST, None)
    judge.look(Job(verb=Verb.DEPLOY, plan=lambda _: (), about=lambda _: {}), [], session)
    assert (ports, session.asked) == (proofs, asked)
    # The site file need not say any more which derper it was.
    assert derpers == [derper for port in proofs for derper in ["its own" if port == 8443 else ""] * 2]
    is_known = bool(history.generations) and not history.unconfirmed.plan
    assert (judge.before is not None) is ((runs and ok) or is_known)


@pytest.mark.parametrize(("ok", "proofs"), [(True, 1), (False, 2)])
def test_a_relay_that_is_up_is_proved_during_the_login(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, ok: bool, proofs: int
) -> None:
    """Its clients have left before the host is asked how many there are."""
    steps, has_login = list[str](), threading.Event()

    def prove_now(_: Fleet, __: Host, *, patience: Patience = Patience(), **___: object) -> Proof:  # noqa: B008
        assert has_login.wait(10)
        steps.append("left" if patience.leave_s else "proved again")
        return proof("hk1", ok=ok)

    def run(_: Fleet, __: object, job: Job, *, judge: Confirmation) -> Outcome:
        has_login.set()
        job.before_asking()
        steps.append("asked")
        session: Any = Before(known(generation(3, "b")), runs=True)
        job.plan(session)
        assert (judge.before is not None, len(steps)) == (True, 1 + proofs)
        return outcome()

    monkeypatch.setattr(confirm, "prove_quietly", prove_now)
    monkeypatch.setattr(confirm, "run", run)
    monkeypatch.setattr(Fleet, "login", lambda *_: None)
    job = Job(verb=Verb.ROLLOUT, plan=lambda _: (), about=lambda _: {})
    confirm.run_confirmed(fleet, HOST, job, Confirmation(fleet, HOST, None, is_up=True))
    assert steps == ["left", "asked", "proved again"][: 1 + proofs]


@pytest.mark.parametrize(
    ("handshake", "answer", "admission"),
    [
        ("ok", '{"step": "connection", "detail": "refused"}', "failed"),
        ("ok", '{"step": "", "allow": false}', "ok"),
        ("ok", None, "skipped"),
        ("failed", '{"step": "connection", "detail": "refused"}', "skipped"),
    ],
)
def test_a_quiet_proof_takes_the_hosts_words_in(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO,
    handshake: Status, answer: str | None, admission: str,
) -> None:  # fmt: skip
    of: dict[str, Status] = {"handshake": handshake, "admission": "skipped"}
    climbed = replace(proof("hk1", ok=True), rungs=tuple(Rung(name, of.get(name, "ok")) for name in LADDER))
    monkeypatch.setattr(prove, "prove", lambda *_, **__: [climbed])
    words = None if answer is None else HostsWords(judge="https://hs.example.org/verify", answer=answer)
    quiet = prove.prove_quietly(fleet, HOST)
    assert prove.with_words(fleet, HOST, quiet, words)["admission"].status == admission
    assert shown.getvalue() == ""
    assert not fleet.proved


@pytest.mark.parametrize("verb", [Verb.ROLLBACK, Verb.CHECK])
def test_a_rollback_asks_first_whether_clients_could_be_admitted(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, verb: Verb
) -> None:
    asked: list[str] = []
    session: Any = Before(KNOWN, runs=True)
    session.ask = lambda ask: asked.extend(ask.commands)
    monkeypatch.setattr(confirm, "prove_quietly", lambda *_, **__: proof("hk1", ok=True))
    judge = Confirmation(fleet, HOST, None)
    judge.look(Job(verb=verb, plan=lambda _: ()), Stored(1, "a", {"seen": settings(HOST)}), session)
    is_dry = verb is Verb.CHECK
    assert asked == ([] if is_dry else ["clients_before", "admission_before"])
    assert (judge.before is None) is is_dry


def test_the_plan_waits_while_it_and_the_control_are_proved(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that hardly answers may take longer than the plan waits without a word."""
    armed: Any = Armed(3)
    held_meanwhile: list[bool] = []

    def work() -> None:
        before, until = len(armed.words), time.monotonic() + 10
        while len(armed.words) == before and time.monotonic() < until:
            time.sleep(0.005)
        held_meanwhile.append(len(armed.words) > before)

    def prove_hosts(*_: object, **__: object) -> dict[str, Proof]:
        work()
        return {"hk1": proof("hk1", ok=False)}

    def control(_: Host) -> bool:
        work()
        return True

    monkeypatch.setattr(held, "_EVERY_S", 0.01)
    monkeypatch.setattr(confirm, "prove_hosts", prove_hosts)
    Confirmation(fleet, HOST, None, control=control)(outcome(), armed)
    assert held_meanwhile == [True, True] * 3
    assert armed.words[-1] == "back"


def test_a_resource_that_failed_is_taken_back_without_a_proof(fleet: Fleet) -> None:
    armed: Any = Armed(3)
    failed = outcome()
    failed.stopped = "stopped by the controller"
    Confirmation(fleet, HOST, None)(failed, armed)
    assert armed.words == ["back"]


@pytest.mark.parametrize(("ok", "words"), [(True, ["hold", "keep"]), (False, ["hold", "back"])])
def test_ctrl_c_while_armed_ends_the_tries(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, ok: bool, words: list[str]
) -> None:
    """The proof in hand still counts."""
    armed: Any = Armed(3)

    def prove_hosts(*_: object, **__: object) -> dict[str, Proof]:
        armed.is_stopping = True
        return {"hk1": proof("hk1", ok=ok)}

    monkeypatch.setattr(evidence, "hear", lambda *_, **__: Evidence())
    monkeypatch.setattr(confirm, "prove_hosts", prove_hosts)
    Confirmation(fleet, HOST, None)(outcome(), armed)
    assert armed.words == words


THREE = IMAGE.replace("1", "3")
DERPER = HOST.model_copy(update={"flavour": "docker", "docker": Docker(image=IMAGE)})


def test_a_generation_says_whose_mesh_key_the_host_has() -> None:
    plan = compile_plan([], mode="apply")
    assert confirm.about(DERPER, plan)[seen.DERPER] == IMAGE
    assert seen.DERPER not in confirm.about(HOST, plan)


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
    monkeypatch.setattr(evidence, "hear", lambda *_, **__: Evidence())
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
    about = {"seen": settings(HOST)} | ({seen.DERPER: derper} if derper else {})
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
    session: Any = SimpleNamespace(history=lambda: history, facts=DEBIAN_12)
    job = way_back(judge, Verb.ROLLBACK, partial(rollback._plan, fleet, HOST, to, False))
    kept = job.plan(session)
    assert isinstance(kept, Stored)
    assert (judge.derper, kept.about[seen.DERPER]) == (derper, derper)


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


@pytest.mark.parametrize("failed", ["", "service:derpfleet-relay.service"])
@pytest.mark.parametrize("stopping", [False, True])
def test_the_clients_are_counted_that_a_plan_has_cut_which_is_taken_back(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO, failed: str, stopping: bool
) -> None:
    before = Output(status=0, stdout="derp_clients_local 3\nprocess_start_unix_time 1000\n", stderr="")
    after = Output(status=0, stdout="0 2000 2001.50\n", stderr="")
    armed: Any = Armed(3)
    went = outcome(changed=["service:derpfleet-relay.service"])
    armed.is_stopping = stopping
    went.facts = replace(DEBIAN_12, commands={"clients_before": before})
    went.failures = [Failure(failed, "not healthy", "")] if failed else []
    patient: list[str] = []

    def ask(asked: Ask) -> Facts:
        patient.append(asked.commands["clients_after"][5])
        return replace(DEBIAN_12, commands={"clients_after": after})

    armed.ask = ask
    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=False)})
    judge = Confirmation(fleet, HOST, None, control=lambda _: True)
    judge(went, armed)
    assert armed.words[-1] == "back"
    assert ("3 clients cut, none came back yet" in shown.getvalue()) is not stopping
    assert patient == ([] if stopping else ["0"])


def test_clients_are_counted_after_the_way_back_and_an_error_is_a_warning(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    before = Output(status=0, stdout="derp_clients_local 3\nprocess_start_unix_time 1000\n", stderr="")
    after = Output(status=0, stdout="3 2000 2001.50\n", stderr="")
    went = outcome(generation=3, changed=["service:derpfleet-relay.service"])
    went.facts = replace(DEBIAN_12, commands={"clients_before": before})

    reading = nullcontext(SimpleNamespace(facts=replace(DEBIAN_12, commands={"clients_after": after})))

    def unreachable(*_: object) -> Any:
        raise DerpfleetError("no connection")

    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=True)})
    job = Job(verb=Verb.DEPLOY, plan=lambda _: ())
    sessions: list[Any] = [lambda *_: reading, unreachable]
    for session in sessions:
        monkeypatch.setattr(Fleet, "session_for_reading", session)
        judge = Confirmation(fleet, HOST, None, verdict=Conclusion.FAILED)
        assert confirm.after_going_back(fleet, HOST, job, went, judge) == TAKEN_BACK
    text = shown.getvalue()
    assert "after the way back: 3 clients cut, 3 of them back within 1.5 s of the relay's start" in text
    assert "its clients were not counted: no connection" in text
