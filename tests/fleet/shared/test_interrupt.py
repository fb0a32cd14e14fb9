"""Ctrl-C at the moments in which none of our code waits for it: while modules are imported, and while a verb ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent.parent

# As .venv/bin/invoke starts, and Ctrl-C when a certain module is looked for, or the process ends.
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
    """A verb that ends without a host, and Ctrl-C at that moment."""
    argv = [sys.executable, "-c", PRESSED, moment, "check", "--site", "inventory/example.yml", "--host", "nobody"]
    return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60, preexec_fn=before)


@pytest.mark.parametrize("moment", ["fleet.check", "pydantic", "rich.console", "engine.report", "inventory.rules", "the end"])
def test_ctrl_c_ends_any_verb_with_130(moment: str) -> None:
    done = check(moment)
    assert done.returncode == 130
    assert done.stderr.endswith("\ninterrupted\n")
    assert "Traceback" not in done.stderr


def test_who_is_told_to_ignore_it_does() -> None:
    """As a shell's background job is."""
    done = check("engine.report", lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert done.returncode == 4
    assert "no host named nobody" in done.stdout
