"""Confirm a plan by a proof from outside, or have the host take it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from control.served import Served
from engine.crash import made_of_facts
from engine.facts import asked
from engine.generations import Generation, History, Stored, moment
from engine.login import Unreachable
from engine.plan import Plan
from engine.run import NOTHING, Job, Outcome
from engine.session import Session
from fleet.shared import cut_over, evidence, past, pins, running, shut_out
from fleet.shared.fleet import Fleet
from fleet.shared.held import held
from fleet.shared.prove import (
    climb,
    derper_of,
    prove_hosts,
    prove_quietly,
    proved_address,
    remember_derper,
    targets,
    was_proved,
    with_words,
)
from fleet.shared.seen import DERPER, SEEN, as_in, as_kept, moved, settings
from fleet.shared.shut_out import Wanted
from fleet.shared.step import run, show_failures
from fleet.shared.verdict import (
    TRIES,
    Conclusion,
    Try,
    are_back,
    broken_rungs,
    excused,
    judged,
    objection,
    pause_s,
)
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.cutover import CutOver
from probe.net import Patience
from probe.proof import LADDER, Proof

ROLLOUT = "rollout"  # among the words of a generation
_LEAVING = Patience(leave_s=1.0)
_TOO_LATE = "our word came too late, and it went back by itself"
_KEPT = (Conclusion.PROVED, Conclusion.STILL_BROKEN)
TAKEN_BACK, STUCK, UNDECIDED = 7, 8, 6
"""Exit codes of a plan that was not kept, when the host is as it was, when it is not, and when the
fault may be our own line."""


def about(host: Host, plan: Plan) -> Mapping[str, str]:
    """Return the words that are kept with a generation: its release, and how it is seen.

    With the derper whose mesh key the host has, as that key is no longer known once the site file
    names another. Raises ImageError.
    """
    derper = derper_of(host)
    known = {DERPER: derper} if derper else {}
    return {**running.named(host, plan), SEEN: settings(host), **known}


@dataclass
class Confirmation:
    """The judge of one host's armed plan. `proof` is the last one that it has made.

    `served`: the map to compare with, where it is known. `leaves`: leave a plan that is not proved
    as it is, unconfirmed, to be looked at. `is_part`: the plan has --only: once it is proved it
    stays, until a whole plan is proved with it and becomes a generation. `why`: the reason of the
    verdict, in words. `before`: the proof from before the changes, made by `look` unless it is
    given; None where nothing was confirmed yet. `is_up`: the relay serves as far as is known, so
    that proof is made during the login. Its clients have left when the host counts its own.
    `former`: the host as it is after the way back.
    `derper`: the one whose mesh key the host has, "" for the site file's. `control`: returns
    whether another relay than the given one is proved now, None without one; default: one that was
    proved before, as its own host has it. `clients`: those that the last restart has cut.
    """

    fleet: Fleet
    host: Host
    served: Served | None
    leaves: bool = False
    is_part: bool = False
    proof: Proof | None = None
    verdict: Conclusion | None = None
    why: str = ""
    before: Proof | None = None
    is_up: bool = False
    former: Host | None = None
    derper: str = ""
    control: Callable[[Host], bool | None] | None = None
    clients: CutOver | None = None
    _early: Future[Proof] | None = None
    _is_new: bool = False  # the plan is no way back
    _is_all_said: bool = False  # by the host, beside the last proof
    _others: dict[str, tuple[Host, str]] = field(default_factory=dict)

    def look(self, job: Job, wanted: Wanted, session: Session) -> None:
        """Look at the host before the plan changes it. Raises WouldShutOut, and nothing is changed.

        A relay that is broken by then has an excuse.
        """
        if job.mode == "check":
            return
        self._is_new = not isinstance(wanted, Stored)
        then = self.host
        if isinstance(wanted, Stored):
            then = as_in(self.host, wanted.about)
            session.ask(asked(cut_over.ask_before(self.host), shut_out.ask(self.fleet, then)))
        cut_over.ask_former(self.host, session)
        shut_out.refuse(self.fleet, then, job, wanted, session.facts)
        if self.before is None and not self.leaves and (job.about or isinstance(wanted, Stored)):
            self.fleet.report.doing(self.host.name, "proof: before the changes")
            self.before = self._proof_before(session)

    def _proof_before(self, session: Session) -> Proof | None:
        """Return the proof of the relay as it is; None without a generation that is in force.

        One that does not hold is made again, with the settings of that generation. It costs a turn
        only then, and where no relay runs. Changes that nobody has confirmed are no excuse.
        """
        words = shut_out.words(self.fleet, self.host, session.facts)
        if cut_over.runs(session.facts):
            proof = self._early.result() if self._early else prove_quietly(self.fleet, self.host)
            proof = with_words(self.fleet, self.host, proof, words)
            if proof.ok:
                return proof
        if not session.newest.generation:
            return None
        history = session.history()
        newest = history.find(history.newest)
        if newest is None or history.unconfirmed.plan:
            return None
        then, derper = as_kept(self.host, newest)
        proof = prove_quietly(self.fleet, then, derper=derper)
        return with_words(self.fleet, then, proof, words, derper=derper)

    def looking_early(self, job: Job, work: Callable[[Job], Outcome]) -> Outcome:
        """Return what `work` does; where the relay is up, it is proved during the login."""
        if not self.is_up:
            return work(job)
        with ThreadPoolExecutor(1) as pool:
            self._early = pool.submit(prove_quietly, self.fleet, self.host, patience=_LEAVING)
            return work(replace(job, before_asking=self._early.result))

    def __call__(self, outcome: Outcome, session: Session) -> None:
        """Keep the plan, have it taken back, or leave it.

        A host that waited in vain for a word has gone back by itself, and ended the session: it is
        as it was, and not lost. One that refuses the way back is as the plan has left it, and not
        proved: the exit code says so. Raises what the session does.
        """
        history = session.came_along or session.history()  # the plan waits, so it has not changed
        remember_derper(self.fleet, self.host, self.derper)
        try:
            self._end(outcome, session, history)
        except Unreachable:
            if not outcome.has_gone_back:
                raise  # it goes back by itself
        except DerpfleetError as error:
            if (self.former or outcome.is_going_back) and not outcome.generation:
                error.exit_code = STUCK
            raise
        if outcome.is_going_back and self.former is None:
            self._was_late(outcome, history.find(session.generation))

    def _end(self, outcome: Outcome, session: Session, history: History) -> None:
        if self._is_new:
            self._show_replaced(outcome, session, history)
        if outcome.ok:
            self.learn_pin(outcome)
        tries = self._try(outcome, session) if outcome.ok else []
        if tries and self._stays(session):
            if not self._is_all_said:
                then, _ = as_kept(self.host, history.find(session.generation))
                self._hear(outcome, session, len(tries), then)
        else:
            self._count_cut(outcome, session)
        if tries:
            self._show(tries)
        if self.verdict in _KEPT and self.proof is not None and not self.is_part:
            session.keep({self.verdict: self.why or f"{self.proof.ms / 1000:.1f} s"})
        elif self._stays(session):
            session.leave()
            if self.is_part and not outcome.is_going_back:
                words = "the next whole deploy confirms these changes"
                self.fleet.report.line(self.host.name, "unconfirmed", words)
        else:
            self._returns_to(history.find(session.generation))
            session.back()

    def _returns_to(self, kept: Generation | None) -> None:
        """Remember the host as that generation has it, for the proofs after the way back."""
        self.former, self.derper = as_kept(self.host, kept)
        remember_derper(self.fleet, self.host, self.derper)

    def _was_late(self, outcome: Outcome, kept: Generation | None) -> None:
        """Note that the host went back before it heard our word. That is no fault of the plan."""
        self._returns_to(kept)
        if outcome.ok:
            self.verdict, self.why = Conclusion.INCONCLUSIVE, _TOO_LATE
            self.fleet.report.line(self.host.name, str(self.verdict), self.why)

    def _show_replaced(self, outcome: Outcome, session: Session, history: History) -> None:
        """Show whose release the plan replaces, when another operator confirmed that one."""
        newest = history.find(history.newest)
        if newest is None or newest.who in ("", session.who):
            return
        release, new = (about.get("release", "") for about in (newest.about, outcome.about))
        if release and new and release != new:
            name, who, since = self.host.name, newest.who, newest.at
            self.fleet.report.emit(event="replaces", host=name, release=release, who=who, since=since)
            self.fleet.report.line(name, "replaces", f"{release} of {who}, since {moment(since)}")

    def _stays(self, session: Session) -> bool:
        """Whether the host does not go back by now."""
        return self.verdict in _KEPT or self.leaves or not session.generation

    def learn_pin(self, outcome: Outcome) -> None:
        """Keep the pin of the certificate that the host has now, if clients need it."""
        if pins.needed(self.host):
            with made_of_facts(self.host.name):
                pins.learn(self.fleet, self.host, outcome.facts)

    def _excuse(self) -> frozenset[str]:
        return excused(self.before) if self.before else frozenset()

    def _try(self, outcome: Outcome, session: Session) -> list[Try]:
        """Prove until there is a verdict. A first deploy has nothing to go back to: one try.

        A plan that stays in any case is not held until our own line is known to work.
        """
        tries: list[Try] = []
        while True:
            with held(session), ThreadPoolExecutor(1) as pool:
                said = pool.submit(evidence.is_all_said, self.host, outcome, session)
                found = prove_hosts(
                    self.fleet, [self.host], served=self.served, derper=self.derper, session=session
                )
                self.proof = found[self.host.name]
                broken = broken_rungs(self.proof)
                control = (self.control or self._control)(self.host) if broken else None
            self._is_all_said = said.result()
            tries.append(Try(broken, control))
            self.verdict = judged(tries, self._excuse())
            is_left = self.leaves and len(tries) >= TRIES
            if self.verdict is not None or is_left or not session.generation or session.is_stopping:
                self.why = self._reason(tries)
                return tries
            excuse = "; our own line may be at fault, so it is held" if len(tries) >= TRIES else ""
            words = f"not proved, try {len(tries)}{excuse}; the next one is in {pause_s(tries):.0f} s"
            self.fleet.report.line(self.host.name, "waiting", words)
            session.pause(pause_s(tries))

    def _reason(self, tries: list[Try]) -> str:
        """Return the verdict's reason in words, "" for a proof that holds."""
        broken = ", ".join(LADDER[name] for name in tries[-1].broken)
        if self.verdict is Conclusion.STILL_BROKEN:
            return f"{broken}, as before"
        if self.verdict is Conclusion.INCONCLUSIVE:
            return f"{broken}, and our own line may be at fault"
        return broken if self.verdict is not Conclusion.PROVED else ""

    def _hear(self, outcome: Outcome, session: Session, proofs: int, then: Host) -> None:
        """Ask the host of a plan for the rest. An objection makes a proved one a failed one.

        But not where the relay was broken before. `then`: the host before the plan, whose clients
        find a relay that has moved only once the map has its new place.
        """
        said = evidence.hear(self.host, outcome, session, strangers=proofs)
        self.clients = said.clients
        cut_over.show(self.fleet, self.host, said.clients, no_figure=cut_over.has_no_figure(outcome))
        against = objection(said)
        if not are_back(said.clients) and moved(self.host, then):
            against += f"; before it moves, run: invoke drain --host {self.host.name}"
        if against and self.verdict is Conclusion.PROVED and not self._excuse():
            self.verdict, self.why = Conclusion.FAILED, against

    def _count_cut(self, outcome: Outcome, session: Session) -> None:
        """Show how many clients a plan has cut that failed. It waits for none of them.

        After Ctrl-C there is no time for it.
        """
        watch = cut_over.ask_after(self.host, outcome, patience_s=0)
        if watch == NOTHING or session.is_stopping:
            return
        session.hold()
        cut_over.show(self.fleet, self.host, cut_over.counted_in(outcome.facts, session.ask(watch)))

    def _show(self, tries: list[Try]) -> None:
        self.fleet.report.emit(
            event="verdict",
            host=self.host.name,
            verdict=self.verdict,
            tries=len(tries),
            broken=list(tries[-1].broken),
            control=tries[-1].control,
            why=self.why,
        )
        if self.verdict not in (None, Conclusion.PROVED):
            shown = "FAILED" if self.verdict is Conclusion.FAILED else str(self.verdict)
            count = f"{len(tries)} tries" if len(tries) > 1 else "1 try"
            self.fleet.report.line(self.host.name, shown, f"{self.why}  · {count}")

    def _control(self, host: Host) -> bool | None:
        """Return whether another relay of the site, proved before, is proved now. None without."""
        others = [one for one in self.fleet.site.hosts.values() if one.name != host.name]
        for other in others:
            if not proved_address(self.fleet, other.name):
                continue
            if other.name not in self._others:
                self._others[other.name] = self._as_it_is(other)
            then, derper = self._others[other.name]
            if was_proved(self.fleet, then):
                [proof] = climb(self.fleet, [then], targets(self.fleet, [then], derper=derper))
                past.add(self.fleet, other.name, proof)
                self.fleet.report.line(other.name, "control", "proved" if proof.ok else "not proved, either")
                return proof.ok
        return None

    def _as_it_is(self, other: Host) -> tuple[Host, str]:
        """Return a relay as its host has it; as the site file does, where that cannot be asked.

        After an edit of the whole site, it may still wait for its own deploy.
        """
        try:
            with self.fleet.session_for_reading(self.fleet.login(other), NOTHING) as session:
                history = session.history()
        except DerpfleetError:
            return other, ""
        return as_kept(other, history.find(history.newest))


def run_confirmed(fleet: Fleet, host: Host, job: Job, judge: Confirmation) -> Outcome:
    """Run a job with that judge. Ctrl-C stops it. Raises as `fleet.shared.step.run` does."""

    def plan(session: Session) -> Wanted:
        made = job.plan(session)
        wanted = made if isinstance(made, Stored) else list(made)
        judge.look(job, wanted, session)
        return wanted

    def work(job: Job) -> Outcome:
        return run(fleet, fleet.login(host), job, judge=judge)

    looking = replace(job, plan=plan)
    return fleet.parallel.run_one(lambda: judge.looking_early(looking, work))


def after_going_back(fleet: Fleet, host: Host, job: Job, outcome: Outcome, judge: Confirmation) -> int:
    """Prove a host again whose plan was taken back, and count clients. Returns the exit code."""
    show_failures(fleet, job, outcome, outcome.astray)
    then = judge.former or host
    proof = prove_hosts(fleet, [then], served=judge.served, derper=judge.derper)[host.name]
    judge.proof = proof
    judge.clients = _count_clients(fleet, then, outcome)
    if outcome.generation and proof.ok:
        fleet.report.say(
            f"{host.name}: the new state was not confirmed and is taken back; generation "
            f"{outcome.generation} is in force again, and PROVED. "
            f"What happened: invoke logs --host {host.name}"
        )
        return UNDECIDED if judge.verdict is Conclusion.INCONCLUSIVE else TAKEN_BACK
    words = "is proved as it is now, but its way back has not ended"
    if not proof.ok:
        words = "is NOT proved after the way back, and serves as it can"
    fleet.report.say(
        f"{host.name} {words}. Look at it: invoke logs --host {host.name}; "
        f"take it out of service: invoke withdraw --host {host.name}"
    )
    return STUCK


def _count_clients(fleet: Fleet, then: Host, outcome: Outcome) -> CutOver | None:
    """Show and return how many of the clients are back on the former relay."""
    watch = cut_over.ask_after(then, outcome)
    if watch == NOTHING:
        return None
    try:
        with fleet.session_for_reading(fleet.login(then), watch) as session:
            found = cut_over.counted_in(outcome.facts, session.facts)
    except DerpfleetError as error:
        fleet.report.warning(then.name, f"its clients were not counted: {error.what}")
        return None
    cut_over.show(fleet, then, found, way_back=True)
    return found
