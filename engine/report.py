"""Output of runs: plain lines, a live line for each host on a terminal, or JSON lines.

This is the only file that prints. Much of the output comes from hosts and strangers. Control
characters in it are made visible, so it cannot drive the terminal.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, RenderableType, RenderHook
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.syntax import Syntax
from rich.text import Text

from inventory.errors import DerpfleetError

STYLES = {
    "ok": "green",
    "changed": "yellow",
    "failed": "bold red",
    "skipped": "dim",
    "would change": "yellow",
    "warning": "yellow",
}
_SHOWN_FROM_S = 0.05  # shorter times are not shown
_RUNGS = {
    "ok": "green",
    "skipped": "dim",
    "FAILED": "bold red",
    "PROVED": "bold green",
    "NOT PROVED": "bold red",
}
_NARROWEST = 24  # columns beside the names; with fewer, lines are not broken
# Control characters could clear the screen or rewrite earlier lines. C0 and DEL are shown as their
# pictures. Shown as � are C1, halves of characters, formats, which are invisible or turn the text
# round, and the separators of lines and paragraphs.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories


class _Shown(dict[int, int | str]):
    """The characters that are shown as others, for str.translate."""

    def __missing__(self, code: int) -> int | str:
        return "\ufffd" if unicodedata.category(chr(code)) in _HIDDEN else code


_SHOWN = _Shown({code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421})
_SHOWN |= {ord(each): each for each in "\n\t"}


def plain(text: str) -> str:
    """Return `text` with its control characters made visible, except line breaks and tabs."""
    return text.translate(_SHOWN)


class _Plain:
    """A renderable whose text is plain. The control codes that rich itself sends are kept."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


class _AllPlain(RenderHook):
    """A hook that makes everything plain that a console prints."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Plain(each) for each in renderables]


class Report:
    """One command's output. Safe to use from the threads of several hosts.

    `json_lines`: every event as one JSON object a line on standard output, and nothing else.
    Otherwise lines for people, with a live status line for each host on a terminal.
    `diffs`: show changes as unified diffs.
    `commands`: completes the commands in a text of ours, so that they can be repeated as they are.
    """

    def __init__(
        self,
        *,
        json_lines: bool = False,
        diffs: bool = False,
        console: Console | None = None,
        commands: Callable[[str], str] = str,
    ) -> None:
        self.json_lines, self.diffs, self._commands = json_lines, diffs, commands
        # A pipe has no width: lines and tables are not cut there.
        width = None if sys.stdout.isatty() else 240
        self.console = console or Console(highlight=False, soft_wrap=True, width=width)
        self.console.push_render_hook(_AllPlain())
        self._lock = threading.Lock()
        self._held: dict[str, list[RenderableType]] = {}  # host -> output to print when it ends
        self._tasks: dict[str, TaskID] = {}
        self._checking: set[str] = set()  # the hosts that are only compared
        self._width = 6  # columns of the hosts' names
        words = (
            TextColumn("{task.fields[host]}", style="bold", markup=False),
            TextColumn("{task.description}", markup=False),
        )
        columns = (SpinnerColumn(), *words, TimeElapsedColumn())
        live = self.console.is_terminal and not json_lines
        self._progress = Progress(*columns, console=self.console, transient=True, disable=not live)

    def __enter__(self) -> Report:
        try:
            self._progress.start()
        except BaseException:  # Ctrl-C while it begins: the cursor is hidden already
            self._progress.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in tuple(self._held):
            self._release(host)
        self._progress.stop()

    def align(self, names: Iterable[str]) -> None:
        """Make the column of names as wide as the longest of these and those before."""
        self._width = max(self._width, *map(cell_len, names))

    def _padded(self, host: str) -> str:
        return host + " " * (self._width - cell_len(host))

    def line(self, host: str, status: str, text: str, *, seconds: float = 0.0) -> None:
        """Print `hk1  changed  file:/etc/x  0.2 s`."""
        self._line(host, status, self._commands(text), seconds=seconds)

    def _line(self, host: str, status: str, text: str, *, seconds: float = 0.0) -> None:
        shown = (f"{status:<12} " if status else "", STYLES.get(status, ""))
        first = Text.assemble((self._padded(host), "bold"), "  ", shown)
        rest = Text.assemble(text, (f"  {seconds:.1f} s" if seconds >= _SHOWN_FROM_S else "", "dim"))
        self._show(host, self._hung(first, rest))

    def rung(self, host: str, text: str, *, hang: int) -> None:
        """Print a line of a proof, coloured by its first words.

        The part that does not fit goes on in column `hang` of the text.
        """
        text = self._commands(text)
        style = next((style for word, style in _RUNGS.items() if text.startswith(word)), "")
        begins = hang if text[hang - 2 : hang] == "  " else 0  # a verdict has no columns
        first = Text.assemble((self._padded(host), "bold"), "  ", (text[:begins], style))
        self._show(host, self._hung(first, Text(text[begins:], "" if begins else style)))

    def _hung(self, first: Text, rest: Text) -> Text:
        """Return both as one text.

        On a terminal `rest` is broken between words, and goes on below its own beginning.
        """
        room = self.console.width - first.cell_len
        if not self.console.is_terminal or room < _NARROWEST:
            return first + rest
        lines = rest.wrap(self.console, room)
        for line in lines:
            line.rstrip()
        return first + Text("\n" + " " * first.cell_len).join(lines)

    def _show(self, host: str, what: RenderableType) -> None:
        """Print `what`, or keep it until the host has ended, so that hosts' lines are not mixed."""
        if self.json_lines:
            return
        with self._lock:
            held = self._held.get(host)
            if held is not None:
                held.append(what)
                return
        self.console.print(what)

    def _release(self, host: str) -> None:
        with self._lock:
            held = self._held.pop(host, [])
        if held:
            self.console.print(Group(*held))

    def say(self, text: str) -> None:
        """Print a line for people that belongs to no host."""
        if not self.json_lines:
            self.console.print(Text(self._commands(text)))

    def emit(self, **event: Any) -> None:
        """Print an event that is for machines only."""
        if self.json_lines:
            with self._lock:
                sys.stdout.write(json.dumps(self._completed(event), sort_keys=True) + "\n")
                sys.stdout.flush()

    def _completed(self, event: Any) -> Any:
        """Return the event with whole commands in each `next`. Texts of hosts stay the same."""
        if isinstance(event, list | tuple):
            return [self._completed(each) for each in event]
        if not isinstance(event, Mapping):
            return event
        return {
            key: self._commands(each) if key == "next" and isinstance(each, str) else self._completed(each)
            for key, each in event.items()
        }

    def doing(self, host: str, text: str) -> None:
        """Set the live line of a host. An empty text ends it."""
        with self._lock:
            if host not in self._tasks:
                self._tasks[host] = self._progress.add_task("", total=None, host=host)
            task = self._tasks[host]
            # rich draws the live line itself, past the hook that makes output plain.
            self._progress.update(task, description=plain(text), visible=bool(text))

    def agent_event(self, host: str, event: Mapping[str, Any]) -> None:
        """Print an event of a host's agent (`engine.session`)."""
        self.emit(host=host, **event)
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is not None and not self.json_lines:
            handler(host, event)

    def _on_plan(self, host: str, event: Mapping[str, Any]) -> None:
        self._checking.discard(host)
        if event["mode"] == "check":
            self._checking.add(host)
            self._held[host] = []
        self.doing(host, f"{event['resources']} resources")

    def _on_sending(self, host: str, event: Mapping[str, Any]) -> None:
        self.doing(host, f"sending {event['sent'] / 1e6:.1f} of {event['size'] / 1e6:.1f} MB")

    def _on_heartbeat(self, host: str, event: Mapping[str, Any]) -> None:
        self.doing(host, f"{event['id']} …")

    def _on_waiting(self, host: str, event: Mapping[str, Any]) -> None:
        self.line(host, "waiting", f"{event['id']}: {event['reason']}")

    def _on_output(self, host: str, event: Mapping[str, Any]) -> None:
        self._line(host, "", event["text"])

    def _on_stored(self, host: str, event: Mapping[str, Any]) -> None:
        for id in event["drift"]:
            self.line(host, "edited", f"{id}  by hand, since generation {event['newest']}")
        self._stay(host, event)

    def _stay(self, host: str, event: Mapping[str, Any]) -> None:
        """Print what a way back does not bring back."""
        for id in event["stays"]:
            self.line(host, "stays", id)

    def _on_kept(self, host: str, event: Mapping[str, Any]) -> None:
        self.line(host, "confirmed", f"generation {event['generation']}")

    def _on_going_back(self, host: str, event: Mapping[str, Any]) -> None:
        self.line(host, "going back", f"to generation {event['generation']}")
        self._stay(host, event)

    def _on_back(self, host: str, event: Mapping[str, Any]) -> None:
        self.line(host, "taken back", f"generation {event['generation']} again")

    def _on_diff(self, host: str, event: Mapping[str, Any]) -> None:
        self.doing(host, event["id"])
        if not self.diffs:
            return
        in_text = ("content", "rules") if event["text"] else ()
        keys = {key: pair for key, pair in event["keys"].items() if key not in in_text}
        if keys.get("type", [""])[0] == "absent":
            keys = {"type": keys["type"]}  # an absent path has no mode and owner to compare
        for key, (present, wanted) in sorted(keys.items()):
            self._line(host, "", f"{event['id']}  {key}: {_short(present) or 'nothing'} -> {_short(wanted)}")
        if event["text"]:
            self.diff(host, event["text"])

    def diff(self, host: str, text: str) -> None:
        """Print a unified diff, where diffs are wanted."""
        if self.diffs:
            diff = Syntax(text.rstrip("\n"), "diff", background_color="default", word_wrap=False)
            self._show(host, diff)

    def _on_result(self, host: str, event: Mapping[str, Any]) -> None:
        self.doing(host, event["id"])
        if event["status"] == "changed":
            self.line(host, self._changed(host), event["id"], seconds=event["ms"] / 1000)

    def _changed(self, host: str) -> str:
        return "would change" if host in self._checking else "changed"

    def counts(self, host: str, counts: Mapping[str, int], *, seconds: float) -> None:
        """Print one host's closing line."""
        self.doing(host, "")
        status = "failed" if counts["failed"] else "changed" if counts["changed"] else "ok"
        words = f"{counts['changed']} {self._changed(host)}, {counts['ok']} ok"
        words += "".join(f", {counts[key]} {key}" for key in ("failed", "skipped") if counts[key])
        if status == "ok":
            words = f"0 changes ({counts['ok']} resources)"
        self.line(host, status, words, seconds=seconds)
        self._release(host)

    def warning(self, host: str, text: str) -> None:
        """Print a warning about a host."""
        self.emit(event="warning", host=host, text=text)
        self.line(host, "warning", text)

    def failure(self, error: DerpfleetError, *, log: str = "", subject: str = "") -> None:
        """Print an error: what, where, why, and what to do next."""
        fields = {"what": error.what, "where": error.where, "why": error.why, "next": error.next, "log": log}
        self.emit(event="failure", host=error.host, subject=subject, **fields)
        if self.json_lines:
            return
        name = f"{self._padded(error.host)}  " if error.host else ""
        title = Text.assemble((name, "bold"), ("FAILED", STYLES["failed"]), f"  {subject}" * bool(subject))
        lines = [title]
        for key, value in fields.items():
            text = self._commands(str(value)) if key == "next" else str(value)
            for number, line in enumerate(text.splitlines()):
                lines.append(self._hung(Text(f"  {key if number == 0 else '':<6}", "bold"), Text(line)))
        self._release(error.host)
        self.console.print(Group(*lines))


def _short(value: object) -> str:
    """Return the value as text, with sha256 digests cut to 16 digits."""
    return re.sub(r"\b([0-9a-f]{16})[0-9a-f]{48}\b", r"\1…", str(value or ""))


def closing(report: Report, failed: Sequence[str], total: int) -> None:
    """Print the last line of a command over several hosts."""
    if total > 1 and failed:
        report.say(f"{len(failed)} of {total} failed: {', '.join(failed)}")
