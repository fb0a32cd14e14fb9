"""A verb that is under way: its events as they arrive, or its terminal."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import Any

from lab import Lab
from tests.e2e.desk import CHECKOUT, Desk, Ran
from tests.support.verbs import INVOKE

Event = dict[str, Any]
ROWS, COLUMNS = 40, 400
_CONTROL = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])")


def verb(stage: Lab, *words: str) -> list[str]:
    """Return the argv of `invoke WORDS` on the lab's site, in the lab's network."""
    return [str(stage.root / "enter"), str(INVOKE), *words, "--site", str(stage.site_file)]


def run_verb(stage: Lab, *words: str, timeout_s: float = 300) -> tuple[int, str]:
    """Run a verb with its output in a pipe; return its exit code and its text for people."""
    done = Desk(stage).run(*words, timeout_s=timeout_s)
    return done.returncode, done.stdout + done.stderr


class Underway:
    """`invoke WORDS --json` that runs while the test goes on. Leaving the block kills it.

    `events`: those that came so far. `arrived`: when each of them did, in `time.monotonic`.
    """

    def __init__(self, stage: Lab, *words: str, checkout: Path = CHECKOUT) -> None:
        argv = verb(stage, *words, "--json")
        self._process = subprocess.Popen(
            argv, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._lines: Queue[tuple[float, str] | None] = Queue()
        self._errors: list[str] = []
        self._readers = [Thread(target=self._read_events), Thread(target=self._read_errors)]
        self.events: list[Event] = []
        self.arrived: list[float] = []
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Underway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream
            stream.close()

    def until(self, wanted: Callable[[Event], bool], *, timeout_s: float = 120) -> Event:
        """Return the next event that is wanted. Fails when the verb ends before."""
        deadline = time.monotonic() + timeout_s
        for event in self._more(deadline):
            if wanted(event):
                return event
        raise AssertionError(f"ended before it came: {self.events[-3:]} {''.join(self._errors)}")

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()
        self._process.wait()

    def interrupt(self) -> None:
        """Send the signal of Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def end(self, *, timeout_s: float = 300) -> Ran:
        """Return all events and the exit code, once it has ended by itself."""
        for _ in self._more(time.monotonic() + timeout_s):
            pass
        code = self._process.wait(10)
        return Ran(code, self.events, "".join(self._errors))

    def _more(self, deadline: float) -> Iterator[Event]:
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise AssertionError(f"nothing more for too long after {self.events[-3:]}") from None
            if line is None:
                return
            self.arrived.append(line[0])
            self.events.append(json.loads(line[1]))
            yield self.events[-1]

    def _read_events(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put((time.monotonic(), line))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr
        self._errors.extend(self._process.stderr)


class Terminal:
    """`invoke WORDS` on its own terminal.

    `seen`: every byte of output. `screen()`: the text that the operator sees.
    """

    def __init__(self, stage: Lab, *words: str) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._settings = termios.tcgetattr(theirs)
        self._theirs = theirs  # kept open, so that the last output can still be read
        argv = ["setsid", "--ctty", *verb(stage, *words)]
        environment = {**os.environ, "TERM": "xterm-256color"}
        self._process = subprocess.Popen(
            argv, cwd=CHECKOUT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        self.seen = ""

    def press_ctrl_c(self) -> None:
        """Press the key, through the terminal's line discipline."""
        os.write(self._ours, b"\x03")

    def until(self, text: str, *, timeout_s: float = 120) -> None:
        """Wait until this text was written."""
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.seen[-2000:]}"
            assert self._read(0.2) or self._process.poll() is None, (
                f"ended before {text!r} came: {self.seen[-2000:]}"
            )

    def end(self, *, timeout_s: float = 120) -> int:
        """Return the exit code, once it has ended by itself."""
        deadline = time.monotonic() + timeout_s
        while self._read(0.1) or self._process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end: {self.seen[-2000:]}"
        return self._process.returncode

    def screen(self) -> Screen:
        """Return the screen as it is now."""
        return Screen(self.seen)

    def is_as_before(self) -> bool:
        """Whether echo, line editing and signals are set as they were at the start."""
        return termios.tcgetattr(self._theirs) == self._settings

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self, patience_s: float) -> bool:
        if not select.select([self._ours], [], [], patience_s)[0]:
            return False
        self.seen += os.read(self._ours, 1 << 16).decode(errors="replace")
        return True


class Screen:
    """The part of a terminal that our output uses. An unknown sequence fails the test."""

    def __init__(self, written: str) -> None:
        self.lines, self.row, self.column, self.cursor_visible = [""], 0, 0, True
        at = 0
        while at < len(written):
            if written[at] == "\x1b":
                sequence = _CONTROL.match(written, at)
                assert sequence, f"unknown to this screen: {written[at : at + 12]!r}"
                self._control(*sequence.groups())
                at = sequence.end()
            else:
                self._put(written[at])
                at += 1

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines)

    def _put(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row += 1
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif char >= " ":
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + char + line[self.column + 1 :]
            self.column += 1

    def _control(self, private: str, numbers: str, letter: str) -> None:
        if private:
            if numbers == "25":
                self.cursor_visible = letter == "h"
        elif letter == "A":
            self.row = max(0, self.row - int(numbers or 1))
        elif letter == "K":
            self.lines[self.row] = "" if numbers == "2" else self.lines[self.row][: self.column]
        else:
            assert letter == "m", f"unknown to this screen: {numbers}{letter}"


@contextmanager
def terminal(stage: Lab, *words: str) -> Iterator[Terminal]:
    """Run a verb on a terminal; kill it at the end of the block if it still runs."""
    opened = Terminal(stage, *words)
    try:
        yield opened
    finally:
        opened.close()
