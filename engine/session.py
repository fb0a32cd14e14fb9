"""One conversation with one host's agent: facts, plan, contents, events. No roles, no printing."""

from __future__ import annotations

import base64
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

from engine.events import STATUSES, Event, understood
from engine.facts import Ask, Facts
from engine.login import Login, Unreachable
from engine.plan import Plan, revealed
from engine.transport import LINE_MAX, AgentChannel, run_once
from inventory.errors import DerpfleetError

OnEvent = Callable[[Event], None]
FACTS_MAX = 32 << 20  # unpacked: a hundred files of 256 KiB, and more than any `nginx -T` prints
_NONSENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, zlib.error)


class Locked(DerpfleetError):
    """Another run has the host's lock."""

    exit_code = 5


class Stopped(DerpfleetError):
    """Stopped from outside before the agent had begun."""

    exit_code = 130


class AgentCrashed(DerpfleetError):
    """The agent ended in a way that it should not."""


class Session:
    """Facts are taken and the host's lock is held from entering to leaving.

    `on_event` gets every event of the agent as a dict, in order. Raises Unreachable, NotReady, Locked, AgentCrashed.
    """

    def __init__(self, login: Login, *, ask: Ask, run_id: str, on_event: OnEvent, lock: bool = True) -> None:
        """`lock=False` is for a look that waits for nobody and changes nothing."""
        self._login, self._on_event = login, on_event
        self._stopping, self._agent_acts = threading.Event(), threading.Event()
        self.is_open = True
        self._ids: Collection[str] | None = None  # those of the plan
        self._channel = AgentChannel(login)
        try:
            who = f"{getpass.getuser()}@{socket.gethostname()}"
            self._send({"hello": 1, "run": run_id, "who": who, "lock": lock} | _asked(ask))
            hello = self._expect("hello")
            with self._sense():
                self.facts = Facts.parse(_unpacked(hello["z"]))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, ask: Ask) -> Facts:
        """The same facts with the answers to another question added. One more turn on the wire."""
        self._send({"ask": 1} | _asked(ask))
        more = self._expect("facts")
        with self._sense():
            self.facts = self.facts.extended(_unpacked(more["z"]))
        return self.facts

    def apply(self, plan: Plan) -> Mapping[str, int]:
        """Carries out (or in check mode, compares) the plan. Returns how many resources ended in each status.

        Raises Stopped when `stop` was called before the agent had all that it needs, and DerpfleetError when it cannot keep that.
        """
        self._raise_when_stopped()
        self._send(plan.message())
        self._ids = {resource.id for resource in plan.resources}
        want = self._expect("want")
        with self._sense():
            lacking = {digest: plan.blobs[digest] for digest in want["blobs"]}
        try:
            for digest, content in lacking.items():
                self._send_blob(digest, revealed(content))
        except Unreachable as error:
            if not isinstance(error.__cause__, TimeoutError):  # it hangs up on what it cannot keep, and has said why
                with suppress(Unreachable):
                    self._expect("done")
            raise
        self._agent_acts.set()
        if self._stopping.is_set():
            self.stop()
        done = self._expect("done")
        return {status: done["counts"][status] for status in STATUSES}

    def stop(self) -> None:
        """Asks the agent to finish the resource in hand and no more. May be called from any thread."""
        self._stopping.set()
        if self._agent_acts.is_set():  # before that, the message might get into the middle of a content
            with suppress(Unreachable):
                self._send({"stop": 1})

    def close(self) -> None:
        """Lets the host's lock go. An agent at work finishes the resource in hand. May be called from any thread."""
        self.is_open = False
        self._channel.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        self._channel.send(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def _send_blob(self, digest: str, content: bytes | Path) -> None:
        if isinstance(content, bytes):
            packed = zlib.compress(content)
            self._channel.send(b'{"blob":"%s","size":%d,"z":1}\n' % (digest.encode(), len(packed)) + packed)
            return
        size, sent = content.stat().st_size, 0
        self._channel.send(b'{"blob":"%s","size":%d}\n' % (digest.encode(), size))
        with content.open("rb") as file:
            while piece := file.read(1 << 18):
                self._raise_when_stopped()
                self._channel.send(piece)
                sent += len(piece)
                self._on_event({"event": "sending", "blob": digest, "sent": sent, "size": size})

    def _raise_when_stopped(self) -> None:
        if self._stopping.is_set():
            raise Stopped("stopped before anything was changed", host=self._login.name)

    def _expect(self, wanted: str) -> Event:
        """Events up to the wanted one, each shown to `on_event`."""
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
            self._on_event({key: value for key, value in event.items() if key != "z"})
            if kind == "confirm":
                self._confirm(event)
            if kind == wanted:
                return event

    def _raise_refusal(self, kind: str, event: Event) -> None:
        if kind == "locked":
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["since"]))
            raise Locked(
                f"the host is locked by {event['who']} since {since}",
                host=self._login.name,
                why="another run is at work there",
                next="wait for it; a run whose connection was lost ends after the resource in hand",
            )
        if kind == "refused":
            raise DerpfleetError(
                event["what"],
                host=self._login.name,
                where=event["where"],
                why=event["why"],
                next="look whether the host's disk is full (df -h) or broken (dmesg), then run the same command again",
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
        """For reading what an event says: a host that is not what it was may say anything. Raises AgentCrashed."""
        try:
            yield
        except _NONSENSE as error:
            why = f"{type(error).__name__}: {error}"
            raise AgentCrashed("the agent's answer makes no sense", host=self._login.name, where="files/agent/", why=why) from error

    def _confirm(self, event: Event) -> None:
        """Proves with a second, fresh connection that the new firewall lets us in; the agent takes it back otherwise."""
        try:
            status, output = run_once(self._login, ["rm", "-f", "--", event["path"]])
        except DerpfleetError as error:
            self._on_event({"event": "output", "text": f"second connection: {error.what}: {error.why}"})
        else:
            if status:
                self._on_event({"event": "output", "text": f"second connection: {output}"})

    def _crashed(self, line: bytes) -> DerpfleetError:
        words = self._channel.last_words()
        if not line and not words:
            return Unreachable(
                "the connection was lost",
                host=self._login.name,
                why="the agent's output ended before its work did",
                next="the agent finishes what it has in hand; run the same command again",
            )
        what, why = "the agent ended early", (line[-2000:].decode(errors="replace") + words)[-2000:]
        if len(line) >= LINE_MAX:
            what, why = "the agent's answer makes no sense", f"a line of more than {LINE_MAX} bytes"
        return AgentCrashed(what, host=self._login.name, where="files/agent/", why=why)


def _asked(ask: Ask) -> dict[str, Any]:
    return {"files": list(ask.files), "commands": {name: list(argv) for name, argv in ask.commands.items()}}


def _unpacked(packed: str) -> dict[str, Any]:
    """Raises ValueError, zlib.error."""
    inflate = zlib.decompressobj()
    text = inflate.decompress(base64.b64decode(packed), FACTS_MAX)
    if not inflate.eof:
        raise ValueError(f"facts of more than {FACTS_MAX} bytes, or cut ones")
    facts: dict[str, Any] = json.loads(text)
    return facts
