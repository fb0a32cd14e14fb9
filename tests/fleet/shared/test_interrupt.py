"""Ctrl-C at moments when our code does not expect it: during imports, and while a verb ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent.parent

# Starts as .venv/bin/invoke does. Ctrl-C comes when the module `moment` is looked for, or at
# the end.
PRESSED = """
import atexit, os, signal, sys
moment = sys.argv.pop(1)
def press():
    os.kill(os.getpid(), signal.SIGINT)
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


def check(moment: str, before: Callable[[], object] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a verb that ends without a host, with Ctrl-C at that moment."""
    words = ["check", "--site", "inventory/example.yml", "--host", "unknown"]
    argv = [sys.executable, "-c", PRESSED, moment, *words]
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
def test_ctrl_c_ends_any_verb_with_130(moment: str) -> None:
    done = check(moment)
    assert done.returncode == 130
    assert done.stderr.endswith("\ninterrupted\n")
    assert "Traceback" not in done.stderr


def test_a_process_that_ignores_sigint_goes_on() -> None:
    """A shell makes its background jobs ignore SIGINT."""
    done = check("engine.report", lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert done.returncode == 4
    assert "no host named unknown" in done.stdout
