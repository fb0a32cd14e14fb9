"""The hosts of a rollout: which event follows from how a host was prepared or cut over."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from engine.facts import Output
from engine.generations import Generation, History, UnconfirmedChanges
from engine.login import Unreachable
from engine.report import Report
from engine.rollout.machine import begin, exit_code, step
from engine.rollout.state import EventKind, HostState, RolloutEvent
from engine.run import Failure, Outcome, Verb
from engine.session import Locked
from fleet.rollout import cutting, preparing
from fleet.rollout import under_way as rollout_under_way
from fleet.rollout.ledger import new_head
from fleet.rollout.under_way import UnderWay
from fleet.shared import past
from fleet.shared.confirm import ROLLOUT, STUCK, TAKEN_BACK, UNDECIDED
from fleet.shared.cut_over import ask_before
from fleet.shared.fleet import Fleet
from fleet.shared.host_job import LeftWithdrawn
from fleet.shared.shut_out import WouldShutOut
from fleet.shared.verdict import Conclusion
from inventory.errors import DerpfleetError
from inventory.model import Host
from inventory.rollout import RolloutPolicy
from probe.cutover import CutOver
from roles import relay
from roles.relay import OutOfService
from tests.control.test_headscale import site_of
from tests.fleet.test_withdraw import proof
from tests.support.facts import DEBIAN_12

PAGE = "derp_clients_local 31\n"
KNOWN = History(
    generations=(Generation(number=3, plan="b"), Generation(number=2, plan="a")),
    unconfirmed=UnconfirmedChanges(),
)
COUNTS = {"ok": 40, "changed": 1, "failed": 0, "skipped": 2}


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def under_way(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> UnderWay:
    """A rollout of hk1 and sg1, with nothing prepared."""
    monkeypatch.setattr(Fleet, "runs", tmp_path)
    fleet = Fleet(site_of(), Report(console=Console(file=shown, width=300)))
    policy = RolloutPolicy()
    return UnderWay(fleet, new_head(["hk1", "sg1"], policy), begin(["hk1", "sg1"], policy))


def outcome_of(host: Host, counts: dict[str, int], **more: Any) -> Outcome:
    facts = replace(DEBIAN_12, commands={"clients_before": Output(status=0, stdout=PAGE, stderr="")})
    return Outcome(host.name, "prepare", counts, facts, Path("log"), **more)


def prepared(
    under_way: UnderWay,
    monkeypatch: pytest.MonkeyPatch,
    result: Callable[[Host], Outcome],
    history: History = KNOWN,
) -> RolloutEvent:
    host = under_way.host("hk1")

    def run(_: Fleet, __: Any, job: Any, **___: Any) -> Outcome:
        outcome = result(host)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fleet.shared.host_job.raise_refusals", lambda *_: None)
            patch.setattr("roles.compile_host", lambda *_: [])
            patch.setattr("fleet.shared.host_job.shipment", lambda *_: None)
            session: Any = SimpleNamespace(facts=DEBIAN_12, history=lambda: history)
            job.plan(session)
        job.about(SimpleNamespace(id="sha256:new", resources=()))
        return outcome

    monkeypatch.setattr(preparing, "run", run)
    return preparing.prepare(under_way, host, Verb.PREPARE)


def test_a_prepared_host_says_what_is_left(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    left = [relay.chosen_runner(under_way.host("hk1")).RUNNING, "symlink:/opt/derpfleet/current"]
    event = prepared(under_way, monkeypatch, lambda host: outcome_of(host, COUNTS, left=left))
    assert (event.kind, event.changes, event.clients) == (EventKind.PREPARED, 3, 31)
    assert (event.plan, event.generation) == ("sha256:new", 3)
    assert "3 changes, restarts the relay (31 clients)" in shown.getvalue()


def test_the_kind_of_a_host_is_what_runs_there(under_way: UnderWay, monkeypatch: pytest.MonkeyPatch) -> None:
    event = prepared(under_way, monkeypatch, lambda host: outcome_of(host, COUNTS))
    host = under_way.host("hk1")
    for word in ("python", host.front, host.certificate.source, DEBIAN_12.os_codename):
        assert word in event.like.split(", ")


def test_a_dry_run_asks_for_clients_and_says_of_no_host_that_it_is_cut_over(
    under_way: UnderWay, shown: io.StringIO
) -> None:
    """Its waves are those of the rollout, as they are by the number of clients."""
    asked_for = under_way.job(under_way.host("hk1"), Verb.CHECK, {}).ask.commands
    assert asked_for.keys() >= ask_before(under_way.host("hk1")).commands.keys()
    for name in ("hk1", "sg1"):
        event = RolloutEvent(kind=EventKind.PREPARED, host=name, changes=1, generation=3, like=name)
        under_way.take(event)
    assert under_way.state.names(HostState.CUTTING) == ["hk1"]
    assert "wave 1       hk1, sg1" in shown.getvalue()
    assert "cut over" not in shown.getvalue()


def test_nothing_to_do_is_nothing_to_cut_over(under_way: UnderWay, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = COUNTS | {"changed": 0, "skipped": 0}
    assert prepared(under_way, monkeypatch, lambda host: outcome_of(host, nothing)).changes == 0
    left = replace(KNOWN, unconfirmed=UnconfirmedChanges(plan="sha256:x", verb="prepare"))
    assert prepared(under_way, monkeypatch, lambda host: outcome_of(host, nothing), left).changes == 1


def test_a_plan_that_could_not_be_proved_is_refused(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    under_way.head = replace(under_way.head, refused={"hk1": "sha256:new"})
    event = prepared(under_way, monkeypatch, lambda host: outcome_of(host, COUNTS))
    assert (event.kind, event.code) == (EventKind.UNPREPARED, 1)
    assert "invoke rollout --again" in shown.getvalue()
    under_way.head = replace(under_way.head, refused={"hk1": "sha256:other"})
    event = prepared(under_way, monkeypatch, lambda host: outcome_of(host, COUNTS))
    assert event.kind is EventKind.PREPARED


def failing(error: Exception) -> Callable[[Host], Outcome]:
    def fail(_: Host) -> Outcome:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "skips", "kind", "code"),
    [
        (Unreachable("no route"), False, EventKind.UNPREPARED, 3),
        (Unreachable("no route"), True, EventKind.SKIPPED, 0),
        (Locked("locked"), True, EventKind.UNPREPARED, 5),
        (DerpfleetError("disk full"), False, EventKind.UNPREPARED, 1),
        (LeftWithdrawn(site_of().hosts["hk1"], OutOfService.WITHDRAWN), False, EventKind.SKIPPED, 0),
    ],
)
def test_a_host_that_cannot_be_prepared(
    under_way: UnderWay,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    skips: bool,
    kind: EventKind,
    code: int,
) -> None:
    under_way.head = replace(under_way.head, skip_unreachable=skips)
    event = prepared(under_way, monkeypatch, failing(error))
    assert (event.kind, event.code) == (kind, code)


def test_a_connection_that_is_cut_is_tried_once_more(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    tries, pauses = list[int](), list[float]()
    results = [Unreachable("the connection was lost"), Locked("locked by us"), outcome_of]
    monkeypatch.setattr("time.sleep", pauses.append)

    def try_once() -> Outcome:
        result = results[len(tries)]
        tries.append(1)
        if isinstance(result, Exception):
            raise result
        return outcome_of(under_way.host("hk1"), COUNTS)

    host = under_way.host("hk1")
    preparing._despite_a_cut(under_way.fleet, host, try_once, [KNOWN])
    assert (len(tries), pauses[0]) == (3, preparing._AGAIN_S)
    assert "once more" in shown.getvalue()
    for begun, count in (((), 1), ((KNOWN,), 2)):  # one that was never reached is not waited for
        tries.clear()
        results[1] = Unreachable("lost again")
        with pytest.raises(Unreachable):
            preparing._despite_a_cut(under_way.fleet, host, try_once, begun)
        assert len(tries) == count


def test_another_plan_than_before_is_said(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    hosts = under_way.state.hosts
    for plan, is_said in (("sha256:new", False), ("sha256:0123456789", True)):
        known = {**hosts, "hk1": replace(hosts["hk1"], plan=plan)}
        under_way.state = replace(under_way.state, hosts=known)
        prepared(under_way, monkeypatch, lambda host: outcome_of(host, COUNTS))
        assert ("01234567 before, new now: the site file or the checkout" in shown.getvalue()) is is_said


def test_a_resource_that_fails_leaves_a_host_unprepared(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = [Failure("package:nginx", "apt-get failed", "404")]
    event = prepared(under_way, monkeypatch, lambda host: outcome_of(host, COUNTS, failures=failed))
    assert (event.kind, event.why) == (EventKind.UNPREPARED, "apt-get failed")


@pytest.fixture
def waiting(under_way: UnderWay) -> UnderWay:
    """Both hosts are prepared, and hk1 is to be cut over."""
    for name, clients in (("hk1", 1), ("sg1", 2)):
        known = {"changes": 1, "generation": 3, "plan": "sha256:new"}
        event = RolloutEvent(kind=EventKind.PREPARED, host=name, clients=clients, **known)  # type: ignore[arg-type]  # by name
        under_way.state = step(under_way.state, event)
    under_way._proved["sg1"] = float("inf")
    return under_way


def cut(waiting: UnderWay, monkeypatch: pytest.MonkeyPatch, **more: Any) -> RolloutEvent:
    """Cut hk1 over. `ok`: whether its proof holds; `code`: that of a way back."""
    host, code, ok = waiting.host("hk1"), more.pop("code", None), more.pop("ok", True)
    verdict, clients = more.pop("verdict", None), more.pop("clients", None)

    def run_confirmed(_: Fleet, host: Host, __: Any, judge: Any) -> Outcome:
        judge.proof, judge.verdict, judge.clients = proof(host.name, ok=ok), verdict, clients
        assert judge.is_up  # it was confirmed before
        return outcome_of(host, COUNTS, is_going_back=code is not None, **more)

    monkeypatch.setattr(cutting, "run_confirmed", run_confirmed)
    monkeypatch.setattr(cutting, "after_going_back", lambda *_: code)
    return cutting.cut_over(waiting, host)


def test_a_proved_host_is_confirmed(waiting: UnderWay, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cut(waiting, monkeypatch).kind is EventKind.CONFIRMED
    assert waiting.proofs["hk1"].ok


def test_the_clients_of_a_restart_go_along(waiting: UnderWay, monkeypatch: pytest.MonkeyPatch) -> None:
    event = cut(waiting, monkeypatch, clients=CutOver(cut=214, back=212, seconds=1.7))
    assert (event.kind, event.cut, event.gap_s) == (EventKind.CONFIRMED, 214, 1.7)
    event = cut(waiting, monkeypatch, code=TAKEN_BACK, clients=CutOver(cut=9, back=0, seconds=None))
    assert (event.kind, event.cut, event.gap_s) == (EventKind.UNDONE, 9, 0.0)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(TAKEN_BACK, EventKind.UNDONE), (UNDECIDED, EventKind.INCONCLUSIVE), (STUCK, EventKind.STUCK)],
)
def test_a_host_that_went_back(
    waiting: UnderWay, monkeypatch: pytest.MonkeyPatch, code: int, kind: EventKind
) -> None:
    assert cut(waiting, monkeypatch, code=code).kind is kind


def test_a_host_that_was_broken_before_is_no_failure(
    waiting: UnderWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = cut(waiting, monkeypatch, ok=False, verdict=Conclusion.STILL_BROKEN)
    assert event.kind is EventKind.STILL_BROKEN
    after = step(waiting.state, event)
    assert (after.names(HostState.CUTTING), exit_code(after), after.failures) == (["sg1"], 6, 0)


def test_a_first_state_that_is_not_proved_is_stuck(
    waiting: UnderWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cut(waiting, monkeypatch, ok=False).kind is EventKind.STUCK


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unreachable("gone"), EventKind.LOST),
        (DerpfleetError("the agent crashed"), EventKind.LOST),
        (Locked("locked by bob"), EventKind.INCONCLUSIVE),
        (cutting.HasMoved("moved"), EventKind.OVERTAKEN),
        (WouldShutOut("headscale is silent"), EventKind.INCONCLUSIVE),
    ],
)
def test_an_error_of_a_cut_over(
    waiting: UnderWay, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: EventKind
) -> None:
    def fail(*_: Any) -> Outcome:
        raise error

    monkeypatch.setattr(cutting, "run_confirmed", fail)
    assert cutting.cut_over(waiting, waiting.host("hk1")).kind is kind


def test_without_another_proved_relay_nothing_is_begun(
    waiting: UnderWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting._proved.clear()
    monkeypatch.setattr(UnderWay, "climbed", lambda _, hosts: [proof(one.name, ok=False) for one in hosts])
    event = cutting.cut_over(waiting, waiting.host("hk1"))
    assert (event.kind, "no other relay is proved" in event.why) == (EventKind.INCONCLUSIVE, True)


def test_each_proof_of_a_rollout_is_kept(waiting: UnderWay, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [proof("hk1", ok=True), proof("sg1", ok=False)]
    monkeypatch.setattr(rollout_under_way, "climb", lambda *_: made)
    monkeypatch.setattr(rollout_under_way, "targets", lambda *_, **__: [])
    assert waiting.climbed([waiting.host("hk1"), waiting.host("sg1")]) == made
    kept = [past.entries(waiting.fleet, name) for name in ("hk1", "sg1")]
    assert [[one.ok for one in found] for found in kept] == [[True], [False]]


def asked(waiting: UnderWay, monkeypatch: pytest.MonkeyPatch, history: History, *, back: bool) -> EventKind:
    class Session(SimpleNamespace):
        def __enter__(self) -> Session:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    session = Session(history=lambda: history)
    monkeypatch.setattr(Fleet, "session_for_reading", lambda *_: session)
    monkeypatch.setattr(cutting, "_is_back", lambda *_, **__: back)
    return cutting.ask(waiting, waiting.host("hk1")).kind


@pytest.mark.parametrize(
    ("verdict", "unconfirmed", "back", "kind"),
    [
        ("proved", "", True, EventKind.CONFIRMED),
        ("still broken", "", True, EventKind.STILL_BROKEN),
        ("", "", True, EventKind.AS_BEFORE),
        ("", "sha256:new", True, EventKind.AS_BEFORE),
        ("", "sha256:new", False, EventKind.STUCK),
    ],
)
def test_a_host_that_was_lost_says_how_it_is(
    waiting: UnderWay,
    monkeypatch: pytest.MonkeyPatch,
    verdict: str,
    unconfirmed: str,
    back: bool,
    kind: EventKind,
) -> None:
    about = {ROLLOUT: waiting.id} if verdict else {}
    newest = Generation(number=4, about=about, proof={verdict: "1.2 s"} if verdict else {})
    history = History(generations=(newest,), unconfirmed=UnconfirmedChanges(plan=unconfirmed))
    assert asked(waiting, monkeypatch, history, back=back) is kind


@pytest.mark.parametrize(
    ("armed", "ok", "is_back"), [(True, True, True), (True, False, False), (False, True, True)]
)
def test_a_host_that_is_back_by_itself_meanwhile_is_proved(
    waiting: UnderWay, monkeypatch: pytest.MonkeyPatch, armed: bool, ok: bool, is_back: bool
) -> None:
    """Its agent may end its way back between our question and our run, which changes nothing."""
    host = waiting.host("hk1")

    def run_confirmed(_: Fleet, host: Host, __: Any, judge: Any) -> Outcome:
        judge.proof = proof(host.name, ok=ok) if armed else None
        return outcome_of(host, COUNTS)

    monkeypatch.setattr(cutting, "run_confirmed", run_confirmed)
    monkeypatch.setattr(cutting, "prove_hosts", lambda *_, **__: {host.name: proof(host.name, ok=ok)})
    assert cutting._is_back(waiting, host, KNOWN, KNOWN.generations[0]) is is_back


def test_a_host_that_cannot_be_asked_pauses_the_rollout(
    waiting: UnderWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise Unreachable("no route")

    monkeypatch.setattr(Fleet, "session_for_reading", away)
    monkeypatch.setattr(cutting, "_AGAIN_S", (0.0, 0.0))
    event = cutting.ask(waiting, waiting.host("hk1"))
    assert (event.kind, "hk1 cannot be asked" in event.why) == (EventKind.PAUSED, True)
