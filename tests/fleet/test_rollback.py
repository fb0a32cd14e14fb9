"""`invoke rollback` and `invoke history`: which generation is meant, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from engine.facts import Facts, Output
from engine.generations import Generation, History, Stored, UnconfirmedChanges
from engine.plan import compile_plan
from engine.report import Report
from engine.run import Job, Outcome, Verb
from engine.session import Session
from fleet import history, rollback
from fleet.rollback import NoGeneration
from fleet.shared import confirm, evidence, prove, step
from fleet.shared.bring_back import way_back
from fleet.shared.confirm import STUCK, TAKEN_BACK, UNDECIDED, Confirmation
from fleet.shared.fleet import Fleet
from fleet.shared.seen import SiteDiffers, former, settings
from fleet.shared.verdict import Conclusion, Evidence
from inventory.errors import DerpfleetError
from inventory.model import Docker, Host
from probe.admission import HostsWords
from probe.proof import LADDER, Proof, Rung, Status
from roles import paths
from tests.fleet.test_prover import IMAGE
from tests.fleet.test_withdraw import proof
from tests.roles.cases import load
from tests.support.facts import DEBIAN_12, EMPTY_FILE

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


def stored(fleet: Fleet, history: History, to: str = "", host: Host = HOST, facts: Facts = DEBIAN_12) -> int:
    session: Any = SimpleNamespace(history=lambda: history, facts=facts)
    return rollback._plan(fleet, host, to, False, session).number


@pytest.mark.parametrize(("note", "state"), [("withdrawn\n", "withdrawn"), ("drained\n", "drained")])
def test_a_relay_out_of_service_is_brought_back_into_service(
    fleet: Fleet, shown: io.StringIO, note: str, state: str
) -> None:
    out = replace(DEBIAN_12, files={paths.WITHDRAWN: replace(EMPTY_FILE, content=note)})
    assert stored(fleet, KNOWN, facts=out) == 1
    assert f"its relay is {state}; a rollback brings it back into service" in shown.getvalue()


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

    def pause(self, seconds: float) -> None:
        assert seconds > 0

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
        (3, [False] * 12, False, ["hold"] * 12 + ["back"], Conclusion.INCONCLUSIVE),
        (3, [False] * 12, True, ["hold"] * 12 + ["leave"], Conclusion.INCONCLUSIVE),
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

    def history(self) -> History:
        self.asked += 1
        return self._history


@pytest.mark.parametrize(
    ("runs", "ok", "history", "asked", "proofs"),
    [
        (True, True, KNOWN, 0, [443]),
        (True, False, KNOWN, 1, [443, 8443]),  # the site file has another port since
        (False, True, KNOWN, 1, [8443]),
        (False, True, known(), 1, []),  # a bare host
        (True, False, known(), 1, [443]),
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
        history = known(generation(3, "b", about={"seen": settings(moved)}), left=left)
    seen: list[int] = []

    def prove_now(_: Fleet, host: Host, words: object, *, derper: str = "") -> Proof:
        seen.append(host.ports.https)
        return proof("hk1", ok=ok)

    monkeypatch.setattr(confirm, "prove_quietly", prove_now)
    session: Any = Before(history, runs=runs)
    judge = Confirmation(fleet, HOST, None)
    judge.look(Job(verb=Verb.DEPLOY, plan=lambda _: (), about=lambda _: {}), [], session)
    assert (seen, session.asked) == (proofs, asked)
    is_known = bool(history.generations) and not history.unconfirmed.plan
    assert (judge.before is not None) is ((runs and ok) or is_known)


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
    monkeypatch.setattr(prove, "prove", lambda _: [climbed])
    words = None if answer is None else HostsWords(judge="https://hs.example.org/verify", answer=answer)
    assert prove.prove_quietly(fleet, HOST, words)["admission"].status == admission
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
    session: Any = SimpleNamespace(history=lambda: history, facts=DEBIAN_12)
    job = way_back(judge, Verb.ROLLBACK, partial(rollback._plan, fleet, HOST, to, False))
    kept = job.plan(session)
    assert isinstance(kept, Stored)
    assert (judge.derper, kept.about[confirm.DERPER]) == (derper, derper)


def outcome(**more: Any) -> Outcome:
    return Outcome("hk1", "apply", {}, DEBIAN_12, Path("log"), **more)


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


def test_clients_are_counted_after_the_way_back_and_an_error_is_a_warning(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    before = Output(status=0, stdout="derp_clients_local 3\nprocess_start_unix_time 1000\n", stderr="")
    after = Output(status=0, stdout="3 2000 2001.50\n", stderr="")
    went = outcome(generation=3, changed=["service:derpfleet-relay.service"])
    went.facts = replace(DEBIAN_12, commands={"clients_before": before})

    class Reading:
        facts = replace(DEBIAN_12, commands={"clients_after": after})

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def unreachable(*_: object) -> Any:
        raise DerpfleetError("no connection")

    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=True)})
    job = Job(verb=Verb.DEPLOY, plan=lambda _: ())
    sessions: list[Any] = [lambda *_: Reading(), unreachable]
    for session in sessions:
        monkeypatch.setattr(Fleet, "session_for_reading", session)
        judge = Confirmation(fleet, HOST, None, verdict=Conclusion.FAILED)
        assert confirm.after_going_back(fleet, HOST, job, went, judge) == TAKEN_BACK
    text = shown.getvalue()
    assert "3 clients cut, 3 of them back within 1.5 s of the relay's start" in text
    assert "its clients were not counted: no connection" in text


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
