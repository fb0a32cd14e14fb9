"""The output for people: on a narrow terminal, of several hosts at once, in a pipe."""

from __future__ import annotations

import io
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from engine.report import Report, plain
from inventory.errors import DerpfleetError

PLAN = {"event": "plan", "mode": "check", "resources": 2}


def diff(name: str, text: str = "", **keys: list[str]) -> dict[str, Any]:
    return {"event": "diff", "id": name, "keys": keys, "text": text}


def result(name: str, ms: int = 0) -> dict[str, Any]:
    return {"event": "result", "id": name, "status": "changed", "ms": ms}


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


def report(shown: io.StringIO, *, width: int = 80, terminal: bool = False, **more: Any) -> Report:
    console = Console(
        file=shown, width=width, force_terminal=terminal, highlight=False, soft_wrap=True, color_system=None
    )
    return Report(console=console, **more)


def test_a_line_that_does_not_fit_goes_on_below_its_own_column(shown: io.StringIO) -> None:
    report(shown, width=48, terminal=True).line(
        "hk1", "changed", "file:/etc/a of some length that goes on and on", seconds=0.2
    )
    assert shown.getvalue().splitlines() == [
        "hk1     changed      file:/etc/a of some length",
        "                     that goes on and on  0.2 s",
    ]


def test_a_rung_goes_on_below_its_detail_and_a_verdict_below_itself(shown: io.StringIO) -> None:
    out = report(shown, width=47, terminal=True)
    out.rung("hk1", "ok       TLS   TLSv1.3, by R11, 61 of 90 days left", hang=15)
    out.rung("hk1", "NOT PROVED in 1 ms: the name is broken, it leads nowhere", hang=15)
    assert shown.getvalue().splitlines() == [
        "hk1     ok       TLS   TLSv1.3, by R11, 61 of",
        "                       90 days left",
        "hk1     NOT PROVED in 1 ms: the name is broken,",
        "        it leads nowhere",
    ]


def test_in_a_pipe_lines_are_whole(shown: io.StringIO) -> None:
    report(shown, width=40).line("hk1", "changed", "x" * 100)
    assert shown.getvalue() == f"hk1     changed      {'x' * 100}\n"


def test_a_short_time_is_not_shown_and_digests_are_short(shown: io.StringIO) -> None:
    out = report(shown, width=200, diffs=True)
    out.agent_event("hk1", diff("tree:/x", archive=["", "ab" * 32]))
    out.agent_event("hk1", result("tree:/x", ms=12))
    assert (
        shown.getvalue()
        == f"hk1     tree:/x  archive: nothing -> {'ab' * 8}…\nhk1     changed      tree:/x\n"
    )


def test_in_a_check_the_lines_of_several_hosts_are_not_mixed(shown: io.StringIO) -> None:
    out = report(shown, width=200, diffs=True)
    for host in ("hk1", "sg1"):
        out.agent_event(host, PLAN)
    for step in (diff("file:/x", "+one\n", content=["", "1"]), result("file:/x")):
        for host in ("hk1", "sg1"):
            out.agent_event(host, step)
    assert shown.getvalue() == ""
    counts = {"ok": 1, "changed": 1, "failed": 0, "skipped": 0}
    out.counts("sg1", counts, seconds=1.0)
    out.failure(DerpfleetError("lost", host="hk1"))
    assert [line.split()[0] for line in shown.getvalue().splitlines()] == [
        "+one", "sg1", "sg1", "+one", "hk1", "hk1", "what",
    ]


def test_each_host_has_its_own_mode(shown: io.StringIO) -> None:
    out = report(shown, width=200)
    out.agent_event("hk1", PLAN)
    out.agent_event("sg1", PLAN | {"mode": "apply"})
    for host in ("hk1", "sg1"):
        out.agent_event(host, result("file:/x"))
        out.counts(host, {"ok": 1, "changed": 1, "failed": 0, "skipped": 0}, seconds=0)
    assert shown.getvalue().splitlines() == [
        "hk1     would change file:/x",
        "hk1     changed      1 would change, 1 ok",
        "sg1     changed      file:/x",
        "sg1     changed      1 changed, 1 ok",
    ]


def test_names_are_padded_to_the_longest(shown: io.StringIO) -> None:
    out = report(shown, width=200)
    out.align(["hk1", "headscale"])
    out.line("hk1", "ok", "as it is")
    out.line("headscale", "ok", "as it is")
    out.rung("hk1", "ok       TLS   TLSv1.3", hang=15)
    out.failure(DerpfleetError("lost", host="hk1"))
    assert shown.getvalue().splitlines() == [
        "hk1        ok           as it is",
        "headscale  ok           as it is",
        "hk1        ok       TLS   TLSv1.3",
        "hk1        FAILED",
        "  what  lost",
    ]


def test_what_was_held_is_shown_when_the_command_ends(shown: io.StringIO) -> None:
    with report(shown, diffs=True) as out:
        out.agent_event("hk1", PLAN)
        out.agent_event("hk1", result("file:/x"))
    assert "would change file:/x" in shown.getvalue()


def test_a_failure_says_what_where_why_and_what_next(shown: io.StringIO) -> None:
    report(shown).failure(DerpfleetError("it broke", where="here", why="one\ntwo", next="fix it"))
    assert (
        shown.getvalue()
        == "FAILED\n  what  it broke\n  where here\n  why   one\n        two\n  next  fix it\n"
    )


def test_names_are_no_markup(shown: io.StringIO) -> None:
    with report(shown, terminal=True) as out:
        out.doing("hk1", "file:/etc/[bold]x[/nothing]")
        out.line("hk1", "ok", "[red]as it is")
    assert "[red]as it is" in shown.getvalue()
    assert "file:/etc/[bold]x[/nothing]" in shown.getvalue()


# with characters that turn text round, that nobody sees, or that separate lines
HOSTILE = "a\x1b[2J\x1b]0;title\x07b\x9b31mc\x7fd\tend\ud800"
HOSTILE += "\u202e\u2066\u2069\u200b\u200f\ufeff\u00ad\u2028\u2029\U000e0041\U000e007f"
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


@pytest.mark.parametrize("terminal", [False, True])
def test_output_of_others_cannot_drive_the_terminal(shown: io.StringIO, terminal: bool) -> None:
    """Print in every way, with a diff and a caller's own table. rich's own codes are kept."""
    out = report(shown, width=200, terminal=terminal, diffs=True)
    table = Table()
    table.add_row(HOSTILE)
    out.say(HOSTILE)
    out.line("hk1", HOSTILE, HOSTILE)
    out.rung("hk1", "ok       " + HOSTILE, hang=9)
    out.agent_event("hk1", diff(HOSTILE, f"+{HOSTILE}\n", mode=["", HOSTILE]))
    out.agent_event("hk1", {"event": "output", "text": HOSTILE})
    out.agent_event("hk1", {"event": "waiting", "id": "x", "reason": HOSTILE})
    out.failure(
        DerpfleetError(HOSTILE, why=HOSTILE, where=HOSTILE, next=HOSTILE), log=HOSTILE, subject=HOSTILE
    )
    out.console.print(table)
    assert {each for each in shown.getvalue() if unicodedata.category(each) in HIDDEN} <= {"\n", "\t"}
    assert shown.getvalue().count("a␛[2J␛]0;title") == 16


def test_the_live_line_shows_controls(shown: io.StringIO) -> None:
    with report(shown, width=200, terminal=True) as out:
        out.doing("hk1", HOSTILE)
    assert "a␛[2J␛]0;title␇b\ufffd31mc␡d" in shown.getvalue()


def test_part_of_an_address_is_no_emoji(shown: io.StringIO) -> None:
    with report(shown, terminal=True) as out:
        out.say("from fd7a::ab:100:1 [red]as it is")
        out.doing("hk1", "asking fd7a::ab:100:1")
    assert "from fd7a::ab:100:1 [red]as it is" in shown.getvalue()
    assert "asking fd7a::ab:100:1" in shown.getvalue()


def test_json_lines_are_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with Report(json_lines=True) as out:
        out.say("people's")
        out.line("hk1", "ok", "people's")
        out.rung("hk1", "ok       people's", hang=9)
        out.agent_event("hk1", result("file:/x"))
        out.failure(DerpfleetError("lost", host="hk1"))
    said = capsys.readouterr()
    assert [json.loads(line)["event"] for line in said.out.splitlines()] == ["result", "failure"]
    assert said.err == ""


def test_ctrl_c_while_it_begins_leaves_the_cursor(
    shown: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("rich.live.Live.refresh", pressed)
        report(shown, terminal=True).__enter__()
    assert shown.getvalue().rindex("\x1b[?25h") > shown.getvalue().rindex("\x1b[?25l")


@given(text=st.text())
def test_no_text_of_a_host_is_invisible_or_turned_round(text: str) -> None:
    assert {each for each in plain(text) if unicodedata.category(each) in HIDDEN} <= {"\n", "\t"}
    assert len(plain(text)) == len(text)
    assert plain("Zürich, 香港, é → ✓") == "Zürich, 香港, é → ✓"
