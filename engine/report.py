"""What people and machines see of runs: plain lines, a live line a host on a terminal, or JSON lines. The only file that prints."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.text import Text

from inventory.errors import DerpfleetError

STYLES = {"ok": "green", "changed": "yellow", "failed": "bold red", "skipped": "dim", "would change": "yellow"}


class Report:
    """One command's output. Safe to use from the threads of several hosts.

    `json_lines`: every event as one JSON object a line on standard output, nothing else. Otherwise people's lines on
    standard output, with a live status line a host when that is a terminal. `diffs`: show what changes, as unified diffs.
    """

    def __init__(self, *, json_lines: bool = False, diffs: bool = False, console: Console | None = None) -> None:
        self.json_lines, self.diffs = json_lines, diffs
        # A pipe has no width: lines and tables are whole there.
        self.console = console or Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240)
        self.started = time.monotonic()
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        live = self.console.is_terminal and not json_lines
        self._progress = Progress(*columns, console=self.console, transient=True, disable=not live)

    def __enter__(self) -> Report:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def line(self, host: str, status: str, text: str, *, seconds: float | None = None) -> None:
        """`hk1  changed  file:/etc/x  0.2 s`."""
        if self.json_lines:
            return
        shown = Text.assemble((f"{host:<6}", "bold"), "  ", (f"{status:<12} " if status else "", STYLES.get(status, "")), text)
        if seconds is not None:
            shown.append(f"  {seconds:.1f} s", "dim")
        self.console.print(shown)

    def say(self, text: str) -> None:
        """A line for people that belongs to no host."""
        if not self.json_lines:
            self.console.print(text, markup=False)

    def emit(self, **event: Any) -> None:
        """An event for machines only."""
        if self.json_lines:
            with self._lock:
                sys.stdout.write(json.dumps(event, sort_keys=True) + "\n")
                sys.stdout.flush()

    def doing(self, host: str, text: str) -> None:
        """The live line of a host; an empty text ends it."""
        with self._lock:
            if host not in self._tasks:
                self._tasks[host] = self._progress.add_task("", total=None)
            task = self._tasks[host]
            self._progress.update(task, description=f"[bold]{host}[/] {text}", visible=bool(text))

    def agent_event(self, host: str, event: Mapping[str, Any]) -> None:
        """An event of a host's agent (`engine.session`)."""
        self.emit(host=host, **event)
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is not None and not self.json_lines:
            handler(host, event)

    def _on_plan(self, host: str, event: Mapping[str, Any]) -> None:
        self._mode = event["mode"]
        self.doing(host, f"{event['resources']} resources")

    def _on_sending(self, host: str, event: Mapping[str, Any]) -> None:
        self.doing(host, f"sending {event['sent'] / 1e6:.1f} of {event['size'] / 1e6:.1f} MB")

    def _on_heartbeat(self, host: str, event: Mapping[str, Any]) -> None:
        self.doing(host, f"{event['id']} …")

    def _on_waiting(self, host: str, event: Mapping[str, Any]) -> None:
        self.line(host, "waiting", f"{event['id']}: {event['reason']}")

    def _on_output(self, host: str, event: Mapping[str, Any]) -> None:
        self.line(host, "", event["text"])

    def _on_diff(self, host: str, event: Mapping[str, Any]) -> None:
        self.doing(host, event["id"])
        if not self.diffs:
            return
        keys = {key: pair for key, pair in event["keys"].items() if not (event["text"] and key in ("content", "rules"))}
        if keys.get("type", [""])[0] == "absent":
            keys = {"type": keys["type"]}  # mode and owner of what is not there say nothing
        for key, (present, wanted) in sorted(keys.items()):
            self.line(host, "", f"{event['id']}  {key}: {present or 'nothing'} -> {wanted}")
        if event["text"]:
            self.console.print(Syntax(event["text"].rstrip("\n"), "diff", background_color="default", word_wrap=False))

    def _on_result(self, host: str, event: Mapping[str, Any]) -> None:
        self.doing(host, event["id"])
        status, checking = event["status"], getattr(self, "_mode", "") == "check"
        if status == "changed":
            self.line(host, "would change" if checking else "changed", event["id"], seconds=event["ms"] / 1000)

    def counts(self, host: str, counts: Mapping[str, int], *, checking: bool, seconds: float) -> None:
        """One host's closing line."""
        self.doing(host, "")
        verb = "would change" if checking else "changed"
        status = "failed" if counts["failed"] else "changed" if counts["changed"] else "ok"
        words = f"{counts['changed']} {verb}, {counts['ok']} ok"
        words += "".join(f", {counts[key]} {key}" for key in ("failed", "skipped") if counts[key])
        if status == "ok":
            words = f"0 changes ({counts['ok']} resources)"
        self.line(host, status, words, seconds=seconds)

    def failure(self, error: DerpfleetError, *, log: str = "", subject: str = "") -> None:
        """What, where, why, what next."""
        fields = {"what": error.what, "where": error.where, "why": error.why, "next": error.next, "log": log}
        self.emit(event="failure", host=error.host, subject=subject, **fields)
        if self.json_lines:
            return
        title = Text.assemble((f"{error.host:<6} " if error.host else "", "bold"), ("FAILED", STYLES["failed"]), f"  {subject}")
        self.console.print(title)
        for key, value in fields.items():
            for number, line in enumerate(str(value).splitlines()):
                self.console.print(Text.assemble((f"  {key if number == 0 else '':<6}", "bold"), line))


def seconds_since(start: float) -> float:
    """Seconds since a `time.monotonic()`."""
    return time.monotonic() - start


def closing(report: Report, failed: Sequence[str], total: int) -> None:
    """The last line of a command over several hosts."""
    if total > 1 and failed:
        report.say(f"{len(failed)} of {total} failed: {', '.join(failed)}")
