"""Words on the terminal: commands that can be repeated as they are, options, narrow terminals."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import lab_tasks
import tasks
from engine.report import Report
from fleet import status
from fleet.shared.options import with_site_file
from inventory.errors import DerpfleetError
from probe.page import Card
from tests.test_docs import long_options
from tests.test_imports import ROOT


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("then: invoke deploy --host hk1", "then: invoke deploy --site 'my site.yml' --host hk1"),
        ("`invoke derpmap` prints", "`invoke derpmap --site 'my site.yml'` prints"),
        ("invoke verify --address relay.example.org", "invoke verify --address relay.example.org"),
        ("invoke init --path x, invoke lab.up", "invoke init --path x, invoke lab.up"),
        ("invoke status --site other.yml", "invoke status --site other.yml"),
    ],
)
def test_commands_repeat_the_site_file_that_was_given(text: str, whole: str) -> None:
    assert with_site_file(text, "my site.yml") == whole
    assert with_site_file(text, "") == text


def test_the_command_of_every_verb_repeats_it() -> None:
    names = [name for name, verb in tasks.namespace.tasks.items() if "--site" in options_of(verb)]
    assert len(names) > 15
    left = [name for name in names if "--site s.yml" not in with_site_file(f"invoke {name}", "s.yml")]
    assert left == ["init"]


def options_of(verb: Any) -> set[str]:
    return {option for one in verb.get_arguments() for option in long_options(one.names)}


def test_every_text_of_ours_repeats_it_and_no_text_of_a_host(capsys: pytest.CaptureFixture[str]) -> None:
    command, shown = "invoke deploy --host hk1", io.StringIO()
    commands = partial(with_site_file, site="s.yml")
    report = Report(console=Console(file=shown, width=200), commands=commands, diffs=True)
    report.say(command)
    report.line("hk1", "ok", command)
    report.rung("hk1", f"next     {command}", hang=9)
    report.failure(DerpfleetError("x", next=command))
    assert shown.getvalue().count("invoke deploy --site s.yml --host hk1") == 4
    report.agent_event("hk1", {"event": "output", "text": command})
    assert shown.getvalue().count("--site") == 4
    machine = Report(json_lines=True, commands=commands)
    machine.emit(event="proof", rungs=[{"next": command, "detail": command}])
    [rung] = json.loads(capsys.readouterr().out)["rungs"]
    assert rung == {"next": "invoke deploy --site s.yml --host hk1", "detail": command}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).with_name("invoke")), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_host_without_its_option_is_named() -> None:
    for words in (("deploy", "hk1"), ("check", "--json", "hk1"), ("deploy", "--only", "x", "hk1")):
        done = run(*words)
        assert done.returncode == 1
        assert "--host hk1" in done.stdout + done.stderr
        assert "No idea" not in done.stdout + done.stderr
    done = run("deploy", "-h", "hk1", "-s", "/nowhere/site.yml")
    assert "is no option" not in done.stdout + done.stderr


CARD = Card(
    host="hongkong1", domain="hk1.example.org", region_id=901, region_code="hkg", region_name="Hong Kong",
    flavour="python", version="0.1.0+g4f9ce47", clients=1234, last_deploy="2026-11-29 05:13:27",
)


@pytest.mark.parametrize("width", [240, 120, 80, 60, 40])
def test_a_status_fits_the_terminal_with_the_proof_in_it(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "_proof_words", lambda _: "BROKEN: certificate")
    monkeypatch.setattr(status, "days_left", lambda _: 89.0)
    shown = io.StringIO()
    console = Console(file=shown, width=width)
    table, left = status._fitting([CARD], console)
    console.print(table)
    lines = shown.getvalue().splitlines()
    assert len(lines) == 2  # nothing is folded
    assert "proof" in lines[0]
    assert "hongkong1" in lines[1]
    assert max(map(len, lines)) <= width
    assert (left == ()) == (width >= 120)


@pytest.mark.parametrize("words", [("--help", "deploy"), ("deploy", "--help")])
def test_the_help_of_a_verb_explains_its_options(words: tuple[str, ...]) -> None:
    assert "one host of the site; may be" in " ".join(run(*words).stdout.split())


def test_a_letter_means_one_option_in_every_verb() -> None:
    verbs = (*tasks.verbs, *lab_tasks.lab.tasks.values())
    arguments = [one for verb in verbs for one in verb.get_arguments()]
    meanings = {(name, one.name) for one in arguments for name in one.names if len(name) == 1}
    assert ("h", "host") in meanings
    assert ("o", "only") in meanings
    assert len({letter for letter, _ in meanings}) == len(meanings)
