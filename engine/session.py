"""One conversation with one host's agent: facts, plan, contents, events. It prints nothing."""

from __future__ import annotations

import getpass
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine import contents, messages
from engine.crash import WHY_MAX, AgentCrashed
from engine.events import STATUSES, Event, understood
from engine.facts import Ask, Facts
from engine.generations import History, Stored
from engine.login import Login, Unreachable
from engine.plan import Mode, Plan, revealed
from engine.transport import LINE_MAX, LOST_STEP, AgentChannel, run_once
from inventory.errors import DerpfleetError

OnEvent = Callable[[Event], None]
_NONSENSE = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError),
    zlib.error,
)
_DISK_STEP = "check the host's disk: `df -h` (full?) and `dmesg` (errors?); then run the same command again"
_RETRY_STEP = "run the same command again; if it fails in the same way, report it as a defect"

_HISTORY = {"history": 1}
_CONFIRM_PAUSE_S = 1.0
_WITHIN_S = 60  # how long an armed plan waits for its proof, without a `hold`


class Locked(DerpfleetError):
    """Another run has the host's lock."""

    exit_code = 5


class Stopped(DerpfleetError):
    """The operator stopped the run before the agent began to change the host."""

    exit_code = 130


class Session:
    """A conversation that holds the host's lock from beginning to end, and its facts.

    `newest`: the outline of the host's newest generation, from before the plan. `came_along`: all
    generations then, if they were asked for. `who`: the operator, as the host notes them.
    `on_event` gets every event of the agent as a dict, in order.
    Raises Unreachable, NotReady, Locked, AgentCrashed.
    """

    def __init__(
        self,
        login: Login,
        *,
        ask: Ask,
        run_id: str,
        on_event: OnEvent,
        lock: bool = True,
        fence: int = 0,
        before_asking: Callable[[], object] = lambda: None,
    ) -> None:
        """Log in and take the facts.

        `lock=False`: read the host even while a run has its lock. `fence`: a rollout's lease by its
        number; a host refuses a lower one than before. `before_asking`: called after the login.
        """
        self._login, self._on_event = login, on_event
        self._stopping, self._agent_acts = threading.Event(), threading.Event()
        self._asking = threading.Lock()
        self.is_open = True
        self._ids: Collection[str] | None = None  # those of the plan
        self.is_armed = False  # the plan is applied, and waits for `keep`, `back` or `leave`
        self.generation = 0  # the one that an armed plan can go back to
        self.who = f"{getpass.getuser()}@{socket.gethostname()}"
        self._channel = AgentChannel(login)
        try:
            before_asking()
            first = {"hello": 1, "run": run_id, "who": self.who, "lock": lock, "fence": fence}
            self._send(first | messages.asked(ask))
            if ask.history:
                self._send(_HISTORY)
            hello = self._expect("hello")
            with self._sense():
                facts, self.newest = messages.introduced(messages.unpacked(hello["z"]))
                self.facts = messages.answered(facts, ask)
            self.came_along = self._unread = self._history() if ask.history else None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, ask: Ask) -> Facts:
        """Ask more questions, and return the facts with the answers. It costs one more turn.

        Any thread may call this; one that asks meanwhile waits.
        """
        send = self._say if self.is_armed else self._send
        with self._asking:
            send({"ask": 1} | messages.asked(ask))
            more = self._expect("facts")
            with self._sense():
                self.facts = messages.answered(self.facts.extended(messages.unpacked(more["z"])), ask)
            return self.facts

    def history(self) -> History:
        """Return the host's generations. It costs one more turn, unless they came along."""
        came, self._unread = self._unread, None
        if came is None:
            self._send(_HISTORY)
        return came or self._history()

    def _history(self) -> History:
        said = self._expect("history")
        with self._sense():
            return History.parse(messages.unpacked(said["z"]))

    def lease(self) -> tuple[int, Any]:
        """Take the lease of the site's rollouts, as long as this session is open.

        Return its number, and the ledger of the last rollout. Raises Locked.
        """
        self._send({"lease": 1})
        said = self._expect("leased")
        with self._sense():
            return said["number"], messages.unpacked(said["z"])

    def note(self, *lines: Mapping[str, Any], begins: bool = False) -> None:
        """Write lines to the ledger of the rollouts, in one turn. `begins`: they begin a new one.

        Raises Unreachable when the lease is lost.
        """
        self._send({"note": [dict(line) for line in lines], "begins": begins})
        self._expect("noted")

    def apply(self, plan: Plan, *, arm: Mapping[str, Any] | None = None) -> Mapping[str, int]:
        """Carry out the plan, or in check mode compare it. Return the number of each status.

        `arm`: {"verb": …, "about": …}, when the plan has to be confirmed and becomes a generation.
        It is armed then, if anything has changed.

        Raises Stopped when `stop` was called before the agent had all contents, and DerpfleetError
        when the agent cannot keep them.
        """
        self._raise_when_stopped()
        self._send(plan.message() | self._arm(arm, plan.id) | {"contents": contents.ahead(plan, self.newest)})
        self._ids = {resource.id for resource in plan.resources}
        want = self._expect("want")
        with self._sense():
            lacking = {digest: plan.blobs[digest] for digest in want["blobs"]}
        try:
            for digest, content in lacking.items():
                whole = revealed(content)
                self._send_blob(digest, whole, contents.held(whole, *want["partial"].get(digest, (0, ""))))
        except Unreachable as error:
            # The agent ends when it cannot keep a content, and has sent the reason.
            if not isinstance(error.__cause__, TimeoutError):
                with suppress(Unreachable):
                    self._expect("done")
            raise
        return self._carried_out()

    def bring_back(
        self, stored: Stored, *, mode: Mode, arm: Mapping[str, Any] | None = None
    ) -> Mapping[str, int]:
        """Carry out a plan that the host has kept, as `apply` does. Nothing is sent to the host.

        Raises DerpfleetError, before anything is changed, when the host cannot bring it back.
        """
        self._raise_when_stopped()
        more = {"stored": stored.number, "force": stored.force, "removed": list(stored.removed)}
        self._ids = ()
        self._send({"plan": 1, "mode": mode, **more} | self._arm(arm, stored.plan, to=stored.number))
        self._ids = self._expect("stored")["ids"]
        return self._carried_out()

    def _arm(self, arm: Mapping[str, Any] | None, plan: str, **more: int) -> dict[str, Any]:
        """Return the part of a message that arms its plan."""
        return {"arm": {"within_s": _WITHIN_S, "who": self.who, "plan": plan, **more, **arm}} if arm else {}

    def _carried_out(self) -> Mapping[str, int]:
        """Return the counts, once the agent has acted."""
        self._agent_acts.set()
        if self._stopping.is_set():
            self.stop()
        end = self._expect("done", "armed")
        self.is_armed, self.generation = end["event"] == "armed", end.get("generation", 0)
        return {status: end["counts"][status] for status in STATUSES}

    @property
    def is_stopping(self) -> bool:
        """Whether the operator has stopped the run."""
        return self._stopping.is_set()

    def pause(self, seconds: float) -> None:
        """Wait so long, or until the operator stops the run."""
        self._stopping.wait(seconds)

    def hold(self) -> None:
        """Make an armed plan wait for `_WITHIN_S` from now on."""
        self._say({"hold": 1})

    def keep(self, proof: Mapping[str, str]) -> bool:
        """Confirm an armed plan. Return whether that came in time: else the host has gone back."""
        self._say({"keep": 1, "proof": dict(proof)})
        return self._settled("kept")

    def back(self) -> bool:
        """Take an armed plan back. Return whether the host is at its newest generation again."""
        self._say({"back": 1})
        return self._settled("back")

    def leave(self) -> None:
        """Leave an armed plan as it is, unconfirmed."""
        self._say({"leave": 1})
        self._settled("done")

    def _say(self, word: Mapping[str, Any]) -> None:
        """Send a word while a plan is armed. An agent that did not wait has said so, and ended."""
        with suppress(Unreachable):
            self._send(word)

    def _settled(self, wanted: str) -> bool:
        """Return whether that event came before the end."""
        self.is_armed, seen = False, False
        while True:
            event = self._expect("kept", "back", "done")
            seen = seen or event["event"] == wanted
            if event["event"] == "done":
                return seen

    def stop(self) -> None:
        """Ask the agent to finish its present resource and no more. Any thread may call this."""
        self._stopping.set()
        # Before that, the message might get into the middle of a content.
        if self._agent_acts.is_set():
            with suppress(Unreachable):
                self._send({"stop": 1})

    def close(self) -> None:
        """Release the host's lock. A working agent finishes its present resource first.

        Any thread may call this.
        """
        self.is_open = False
        self._channel.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        self._channel.send(messages.line(message))

    def _send_blob(self, digest: str, content: bytes | Path, start: int) -> None:
        """Send the content after its first `start` bytes, which the host has."""
        if isinstance(content, bytes):
            packed = zlib.compress(content[start:])
            head = {"blob": digest, "size": len(packed), "from": start, "z": 1}
            self._channel.send(messages.line(head) + packed)
            return
        size, sent = content.stat().st_size, start
        self._send({"blob": digest, "size": size - start, "from": start})
        with content.open("rb") as file:
            file.seek(start)
            while piece := file.read(1 << 18):
                self._raise_when_stopped()
                self._channel.send(piece)
                sent += len(piece)
                self._on_event({"event": "sending", "blob": digest, "sent": sent, "size": size})

    def _raise_when_stopped(self) -> None:
        if self._stopping.is_set():
            raise Stopped("stopped before anything was changed", host=self._login.name)

    def _expect(self, *wanted: str) -> Event:
        """Show every event to `on_event` up to one of the wanted ones, and return that."""
        while True:
            line = self._channel.read_line()
            try:
                said = json.loads(line)
            except _NONSENSE:
                raise self._crashed(line) from None
            with self._sense():
                event = understood(said, ids=self._ids)
                kind = event["event"]
                self._raise_refusal(kind, event)
            if kind == "going_back":
                self._ids = event["ids"]
            self._on_event({key: value for key, value in event.items() if key != "z"})
            if kind == "confirm":
                self._confirm(event)
            if kind in wanted:
                return event

    def _raise_refusal(self, kind: str, event: Event) -> None:
        if kind == "locked":
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["since"]))
            raise Locked(
                f"the host is locked by {event['who']} since {since}",
                host=self._login.name,
                why="; ".join(filter(None, ("another run is at work there", event["in_force"]))),
                next=(
                    "wait until that run ends; one that lost its connection ends after its present resource, "
                    "and takes a deploy back that is not confirmed"
                ),
            )
        if kind == "refused":
            raise DerpfleetError(
                event["what"],
                host=self._login.name,
                where=event["where"],
                why=event["why"],
                next=event["next"] or (_DISK_STEP if event["where"] else _RETRY_STEP),
            )
        if kind == "crash":
            raise AgentCrashed(
                "the agent crashed",
                host=self._login.name,
                where="files/agent/",
                why=event["traceback"],
                next="this is a defect: please report it",
            )

    @contextmanager
    def _sense(self) -> Iterator[None]:
        """Turn an error in reading an event into AgentCrashed. A bad host may send anything."""
        try:
            yield
        except _NONSENSE as error:
            what, why = "the agent's answer makes no sense", f"{type(error).__name__}: {error}"[:WHY_MAX]
            raise AgentCrashed(what, host=self._login.name, where="files/agent/", why=why) from error

    def _confirm(self, event: Event) -> None:
        """Prove with a second, fresh connection that the new firewall lets the controller in.

        Otherwise the agent takes it back. One refused connection is no proof: the host's SSH server
        drops some when there are many (MaxStartups). So it is tried until the agent's time is over.
        """
        until, said = time.monotonic() + event["within_s"], ""
        while True:
            trouble = self._second_connection(event["path"])
            if trouble and trouble != said:
                self._on_event({"event": "output", "text": f"second connection: {trouble}"})
                said = trouble
            if not trouble or time.monotonic() + _CONFIRM_PAUSE_S >= until:
                return
            time.sleep(_CONFIRM_PAUSE_S)

    def _second_connection(self, path: str) -> str:
        """Remove the file over a fresh connection. Return why that failed, or ""."""
        try:
            status, output = run_once(self._login, ["rm", "-f", "--", path])
        except DerpfleetError as error:
            return f"{error.what}: {error.why}"
        return (output.strip() or f"exit status {status}") if status else ""

    def _crashed(self, line: bytes) -> DerpfleetError:
        words = self._channel.last_words()
        if not line and not words:
            return Unreachable(
                "the connection was lost",
                host=self._login.name,
                why="the agent's output ended before its work was finished",
                next=LOST_STEP,
            )
        what, why = "the agent ended early", (line[-2000:].decode(errors="replace") + words)[-2000:]
        if len(line) >= LINE_MAX:
            what, why = "the agent's answer makes no sense", f"a line of more than {LINE_MAX} bytes"
        return AgentCrashed(what, host=self._login.name, where="files/agent/", why=why)
