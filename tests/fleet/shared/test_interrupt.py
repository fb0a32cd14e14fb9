"""Ctrl-C and SIGTERM when our code does not expect them: in imports, and while a verb ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CHECKOUT = Path(__file__).parent.parent.parent.parent

# Starts as .venv/bin/invoke does. Ctrl-C comes when the module `moment` is looked for, or at
# the end.
PRESSED = """
import atexit, os, signal, sys
moment, number = sys.argv.pop(1), int(sys.argv.pop(1))
def press():
    os.kill(os.getpid(), number)
class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == moment:
            press()
sys.meta_path.insert(0, Finder)
if moment == "the end":
    atexit.register(press)
from invoke.main import program
program.run()
"""


def check(
    moment: str, number: signal.Signals, before: Callable[[], object] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a verb that ends without a host, with that signal at that moment."""
    words = ["check", "--site", "inventory/example.yml", "--host", "unknown"]
    argv = [sys.executable, "-c", PRESSED, moment, str(int(number)), *words]
    return subprocess.run(
        argv, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60, preexec_fn=before
    )


@pytest.mark.parametrize(
    "moment",
    [
        *("lab_tasks", "fleet.shared.opening", "fleet.check", "pydantic", "rich.console", "engine.report"),
        *("inventory.rules", "the end"),
    ],
)
@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_a_signal_ends_any_verb_with_130(moment: str, number: signal.Signals) -> None:
    done = check(moment, number)
    assert done.returncode == 130
    assert done.stderr.endswith("\ninterrupted\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_a_process_that_ignores_a_signal_goes_on(number: signal.Signals) -> None:
    """A shell makes its background jobs ignore SIGINT."""
    done = check("engine.report", number, lambda: signal.signal(number, signal.SIG_IGN))
    assert done.returncode == 4
    assert "no host named unknown" in done.stdout


HANGS = """
import os, signal, sys, time
from fleet.shared import interrupt
interrupt.BUDGET_S = 0.2
interrupt.leave_at_once()
heard = []
with interrupt.heard(lambda: heard.append("heard")):
    os.kill(os.getpid(), int(sys.argv[1]))
    print(heard, flush=True)
    time.sleep(float(sys.argv[2]))
print("it went on")
"""


def hangs(number: signal.Signals, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run work that goes on for so long after the signal was heard. The budget is 0.2 s."""
    argv = [sys.executable, "-c", HANGS, str(int(number)), str(seconds)]
    return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60)


def test_after_sigterm_the_process_ends_within_its_budget() -> None:
    done = hangs(signal.SIGTERM, 50)
    assert (done.returncode, done.stdout) == (130, "['heard']\n")
    assert done.stderr == "\ninterrupted\n"


def test_ctrl_c_has_no_budget() -> None:
    done = hangs(signal.SIGINT, 1)
    assert (done.returncode, done.stdout) == (0, "['heard']\nit went on\n")
