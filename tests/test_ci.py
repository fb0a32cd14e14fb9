"""The files that make a CI the controller: they are valid, and a cancelled job ends in time.

Summaries have the words of derpfleet, whatever hosts send.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import tasks
from engine.rollout.machine import PAUSED
from engine.rollout.state import Rollout, RolloutAction, RolloutEvent
from fleet.shared import interrupt
from tests.engine.simulated import world_of
from tests.fleet.test_rollout import POLICY, Desk, fleet_of
from tests.test_docs import long_options
from tests.test_imports import ROOT

GITHUB = ROOT / "ci" / "github" / "derpfleet.yml"
GITLAB = ROOT / "ci" / "gitlab" / "derpfleet.yml"


def github() -> Any:
    return yaml.load(GITHUB.read_text(), yaml.BaseLoader)


def gitlab() -> Any:
    return yaml.load(GITLAB.read_text(), yaml.BaseLoader)


def github_scripts() -> dict[str, str]:
    return {step["name"]: step["run"] for step in github()["jobs"]["relays"]["steps"] if "run" in step}


def gitlab_scripts() -> dict[str, str]:
    jobs = {name: job for name, job in gitlab().items() if "script" in job}
    before = gitlab()[".derpfleet"]["before_script"]
    return {name: "\n".join([*before, *job["script"]]) for name, job in jobs.items()}


SCRIPTS = [*github_scripts().values(), *gitlab_scripts().values()]
STEPS = github()["jobs"]["relays"]["steps"]


@pytest.mark.parametrize(
    ("shell", "script"),
    [("bash", each) for each in github_scripts().values()]
    + [("sh", each) for each in gitlab_scripts().values()],
)
def test_a_script_is_valid_for_the_shell_of_its_runner(shell: str, script: str) -> None:
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_an_action_is_pinned_to_a_commit_with_its_version_and_leaves_no_token() -> None:
    uses = re.findall(r"uses: (\S+)(.*)", GITHUB.read_text())
    assert len(uses) == len([step for step in STEPS if "uses" in step]) == 4
    for action, rest in uses:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action)
        assert re.fullmatch(r"  # v\d+\.\d+\.\d+", rest)
    checkouts = [step for step in STEPS if "actions/checkout@" in step.get("uses", "")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == ["false", "false"]


def test_the_key_of_the_cache_is_of_all_that_is_built_or_fetched() -> None:
    [cache] = [step["with"] for step in STEPS if "actions/cache@" in step.get("uses", "")]
    patterns = re.findall(r"'derpfleet/([^']+)'", cache["key"])
    hashed = {path for pattern in patterns for path in ROOT.glob(f"{pattern}/*") if path.is_file()}
    locks = {path for name in ("requirements", "artefacts") for path in (ROOT / name).rglob("*.lock")}
    assert locks | set((ROOT / "artefacts").rglob("go.sum")) | set((ROOT / "relay").rglob("*.py")) <= hashed
    assert cache["key"].startswith(cache["restore-keys"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_calls_verbs_with_options_that_exist(script: str) -> None:
    for verb, rest in re.findall(r"\binvoke ([a-z.]+)(.*)", script):
        known = {name for one in tasks.namespace[verb].get_arguments() for name in long_options(one.names)}
        assert set(re.findall(r"--[\w-]+", rest)) <= known


def test_files_that_a_script_names_are_in_the_checkout() -> None:
    for path in re.findall(r"-r (\S+)", "\n".join(SCRIPTS)):
        assert (ROOT / path).is_file()


def test_a_pull_request_checks_and_main_rolls_out() -> None:
    when = {step.get("name"): step.get("if") for step in STEPS}
    assert when["Check"] == "github.event_name == 'pull_request'"
    assert when["Rollout"] == "github.event_name == 'push'"
    assert when["Register"] == f"{when['Rollout']} || {when['Resume']}"
    assert when["Look"].endswith(f"!{when['Resume']}")
    assert set(github()["on"]["workflow_dispatch"]["inputs"]) == {"resume"}
    assert github()["on"]["push"]["branches"] == ["main"]
    rules = {name: gitlab()[name]["rules"][0]["if"] for name in ("check", "rollout", "register", "look")}
    assert rules["check"] == '$CI_PIPELINE_SOURCE == "merge_request_event"'
    assert "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH" in rules["rollout"]
    assert rules["register"] == rules["rollout"]
    [resume] = gitlab()["resume"]["rules"]
    assert resume == gitlab()["rollout"]["rules"][0] | {"when": "manual", "allow_failure": "true"}


def test_nothing_is_registered_after_a_rollout_that_failed_or_is_paused() -> None:
    steps = [step for step in github()["jobs"]["relays"]["steps"] if "continue-on-error" not in step]
    names = [step.get("name") for step in steps]
    assert names.index("Rollout") < names.index("Resume") < names.index("Register")
    assert all("()" not in STEPS[names.index(name)]["if"] for name in ("Rollout", "Resume", "Register"))
    assert gitlab()["register"]["needs"] == ["rollout"]
    assert "allow_failure" not in gitlab()["rollout"]


@pytest.mark.parametrize("code", [0, 1, 5, 6, 7, 8])
@pytest.mark.parametrize(
    "script",
    [
        *[github_scripts()[name] for name in ("Rollout", "Resume")],
        *[gitlab()[name]["script"][-1] for name in ("rollout", "resume")],
    ],
)
def test_a_rollout_passes_when_all_hosts_are_confirmed(tmp_path: Path, script: str, code: int) -> None:
    stand_in(tmp_path, f'test "$1" = rollout && exit {code}')
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, check=False)
    assert done.returncode == code


def test_one_run_at_a_time_and_a_rollout_is_not_cancelled_for_a_newer_one() -> None:
    assert github()["concurrency"] == {"group": "derpfleet", "cancel-in-progress": "false"}
    assert gitlab()[".derpfleet"]["resource_group"] == "derpfleet"
    assert gitlab()[".derpfleet"]["interruptible"] == "false"


def test_a_job_may_only_read_its_repository_and_secrets_are_references() -> None:
    assert github()["permissions"] == {"contents": "read"}
    values = [
        value for step in github()["jobs"]["relays"]["steps"] for value in step.get("env", {}).values()
    ]
    assert values
    assert all(re.fullmatch(r"\$\{\{ secrets\.DERPFLEET_\w+ \}\}", value) for value in values)
    assert not any("${{" in script for script in github_scripts().values())  # no injection into a shell


@pytest.mark.parametrize(("code", "passes"), [(0, True), (10, True), (1, False), (3, False)])
@pytest.mark.parametrize("script", [github_scripts()["Check"], gitlab()["check"]["script"][-1]])
def test_a_check_that_finds_changes_passes(tmp_path: Path, script: str, code: int, passes: bool) -> None:
    stand_in(tmp_path, f"echo '+ a line'; exit {code}")
    env = {**os.environ, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == passes
    assert "+ a line" in done.stdout


def test_the_changes_of_a_check_are_linked_in_its_merge_request() -> None:
    [path] = gitlab()["check"]["artifacts"]["paths"]
    assert gitlab()["check"]["artifacts"]["expose_as"]
    assert f"check > {path.removeprefix('derpfleet/')} " in gitlab()["check"]["script"][-1]


def summary_of(folder: Path, script: str) -> tuple[str, str]:
    """Run a step of GitHub's. Returns what it adds to the summary, and its output."""
    summary = folder / "summary"
    summary.touch()
    env = {**os.environ, "GITHUB_STEP_SUMMARY": str(summary)}
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    return summary.read_text(), done.stdout


@pytest.mark.parametrize(("step", "file"), [("Check", "sent"), ("Summary", "rollout.log")])
def test_no_line_of_a_host_ends_the_block_and_a_summary_is_bounded(
    tmp_path: Path, step: str, file: str
) -> None:
    stand_in(tmp_path, "cat sent")
    (tmp_path / file).write_text("+ a line\n ~~~~~\n~~~\n[a link](https://example.org)\n")
    lines = summary_of(tmp_path, github_scripts()[step])[0].splitlines()
    assert lines[0].startswith("~~~")
    assert "[a link](https://example.org)" in lines
    assert [line for line in lines[1:] if line.strip(" ").startswith("~~~")] == [lines[-1]]
    (tmp_path / file).write_text("+ a line\n" * 200_000)
    assert len(summary_of(tmp_path, github_scripts()[step])[0]) < 1024 * 1024


@pytest.mark.parametrize("how", ["paused", "lost", "ended"])
def test_the_summary_of_a_rollout_is_its_output_and_a_pause_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    desk = Desk(tmp_path, world_of(fleet_of(3), POLICY), monkeypatch, json_lines=False)
    perform = desk.world.perform

    def losing(state: Rollout, action: RolloutAction) -> RolloutEvent:
        desk.lost = how == "lost"
        return perform(state, action)

    monkeypatch.setattr(desk.world, "perform", losing)
    code = desk.begin(pauses=how == "paused")
    said = desk.shown.getvalue()
    (tmp_path / "said").write_text(said)
    stand_in(tmp_path, f"cat said; exit {code}")
    done = subprocess.run(
        ["bash", "-e", "-c", github_scripts()["Rollout"]], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, said)
    summary, shown = summary_of(tmp_path, github_scripts()["Summary"])
    assert said in summary
    assert (shown.startswith("::warning ") and "resume" in shown) == (code == PAUSED) == (how != "ended")


def stand_in(folder: Path, script: str) -> None:
    """Put a program in the place of invoke."""
    program = folder / ".venv" / "bin" / "invoke"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


# A verb at work on a host: a session that ends after some seconds when it is told to stop.
AT_WORK = """
import sys, time
from invoke.exceptions import Exit
from fleet.shared import interrupt
from fleet.shared.opening import with_report
from fleet.shared.parallel import Parallel
interrupt.leave_at_once()
lasts, scale = map(float, sys.argv[1:])
del sys.argv[1:]
interrupt.BUDGET_S *= scale
class Session:
    is_open, is_stopping = True, False
    def stop(self):
        Session.is_stopping = True
    def close(self):
        Session.is_open = False
def work():
    print("at work", flush=True)
    while not Session.is_stopping:
        time.sleep(0.02)
    time.sleep(lasts)
    Session.is_open = False
    print("the host is back as it was", flush=True)
def verb(report):
    parallel = Parallel(report)
    parallel.watch(Session())
    parallel.run_one(work)
try:
    with_report(verb)
except Exit as error:
    sys.exit(error.code)
"""
# (seconds after the one before, signal), as a runner sends them to the process that it started.
# GitHub's: SIGINT, after 7.5 s SIGTERM, after 2.5 s SIGKILL. GitLab's: SIGTERM, after 10 s SIGKILL.
# The pauses before SIGKILL are real, and the others shorter, as derpfleet's own budget is then.
SCALE = 0.2
Signals = Sequence[tuple[float, signal.Signals]]
OF_GITHUB: Signals = ((0, signal.SIGINT), (7.5, signal.SIGTERM), (2.5, signal.SIGKILL))
OF_GITLAB: Signals = ((0, signal.SIGTERM), (10, signal.SIGKILL))


def at_work(lasts: float) -> str:
    """Return the script of a verb whose host takes so long to go back."""
    return f"exec {sys.executable} -c {shlex.quote(AT_WORK)} {lasts} {SCALE}"


def cancelled(folder: Path, script: str, signals: Signals) -> tuple[int, float, str]:
    """Run a step of the CI, and cancel it while it works. Returns its code, seconds and output."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        ["bash", "-e", "-c", script], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    ) as step:  # fmt: skip
        assert step.stdout is not None
        output = [step.stdout.readline()]
        began = time.monotonic()
        for pause_s, number in signals:
            try:
                step.wait(pause_s if number == signal.SIGKILL else pause_s * SCALE)
                break
            except subprocess.TimeoutExpired:
                step.send_signal(number)
        step.wait(10)
        took_s = time.monotonic() - began
        output += step.stdout.readlines()
    return step.returncode, took_s, "".join(output)


ON_MAIN = [
    pytest.param(github_scripts()["Rollout"], OF_GITHUB, id="github"),
    pytest.param(github_scripts()["Resume"], OF_GITHUB, id="github, resume"),
    pytest.param(github_scripts()["Register"], OF_GITHUB, id="github, register"),
    pytest.param(gitlab()["rollout"]["script"][-1], OF_GITLAB, id="gitlab"),
    pytest.param(gitlab()["resume"]["script"][-1], OF_GITLAB, id="gitlab, resume"),
    pytest.param(gitlab()["register"]["script"][-1], OF_GITLAB, id="gitlab, register"),
]


@pytest.mark.parametrize(("script", "signals"), ON_MAIN)
def test_a_cancelled_job_ends_by_itself_when_its_host_is_back(
    tmp_path: Path, script: str, signals: Signals
) -> None:
    stand_in(tmp_path, at_work(0.3))
    code, _, output = cancelled(tmp_path, script, signals[:1])
    assert "the host is back as it was" in output
    assert code == interrupt.CODE


@pytest.mark.parametrize(("script", "signals"), ON_MAIN)
def test_one_that_hangs_ends_by_itself_before_it_is_killed(
    tmp_path: Path, script: str, signals: Signals
) -> None:
    """The host then goes back by itself, as the connection ends with the process.

    GitHub's SIGTERM is a second signal, which abandons the work at once.
    """
    stand_in(tmp_path, at_work(60))
    code, _, output = cancelled(tmp_path, script, signals)
    assert code == interrupt.CODE
    assert "back as it was" not in output


def test_one_that_hears_nothing_is_killed(tmp_path: Path) -> None:
    stand_in(tmp_path, "trap '' INT TERM; echo at work; while :; do :; done")
    code, took_s, _ = cancelled(tmp_path, github_scripts()["Rollout"], OF_GITHUB)
    assert code == -signal.SIGKILL
    assert took_s > 7.5 * SCALE + 2.5
