"""The files that make a CI the controller: they are valid, and a cancelled job ends in time."""

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
from fleet.shared import interrupt
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


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_valid_for_the_shell(script: str) -> None:
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_calls_verbs_with_options_that_exist(script: str) -> None:
    for verb, rest in re.findall(r"\binvoke ([a-z.]+)(.*)", script):
        known = {name for one in tasks.namespace[verb].get_arguments() for name in long_options(one.names)}
        assert set(re.findall(r"--[\w-]+", rest)) <= known


def test_files_that_a_script_names_are_in_the_checkout() -> None:
    for path in re.findall(r"-r (\S+)", "\n".join(SCRIPTS)):
        assert (ROOT / path).is_file()


def test_a_pull_request_checks_and_main_rolls_out() -> None:
    when = {step.get("name"): step.get("if") for step in github()["jobs"]["relays"]["steps"]}
    assert when["Check"] == "github.event_name == 'pull_request'"
    assert when["Rollout"] == when["Register"] == "github.event_name == 'push'"
    assert github()["on"]["push"]["branches"] == ["main"]
    rules = {name: gitlab()[name]["rules"][0]["if"] for name in ("check", "rollout", "register", "look")}
    assert rules["check"] == '$CI_PIPELINE_SOURCE == "merge_request_event"'
    assert "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH" in rules["rollout"]
    assert rules["register"] == rules["rollout"]


def test_nothing_is_registered_after_a_rollout_that_failed_or_is_paused() -> None:
    steps = [step for step in github()["jobs"]["relays"]["steps"] if "continue-on-error" not in step]
    names = [step.get("name") for step in steps]
    assert names.index("Rollout") < names.index("Register")
    assert gitlab()["register"]["needs"] == ["rollout"]
    assert "allow_failure" not in gitlab()["rollout"]


@pytest.mark.parametrize("code", [0, 1, 5, 6, 7, 8])
@pytest.mark.parametrize("script", [github_scripts()["Rollout"], gitlab()["rollout"]["script"][-1]])
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
    pytest.param(github_scripts()["Register"], OF_GITHUB, id="github, register"),
    pytest.param(gitlab()["rollout"]["script"][-1], OF_GITLAB, id="gitlab"),
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
