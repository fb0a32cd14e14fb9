"""Programs of the site file that a rollout calls. They allow a wave, or hear of one or of the end.

Each gets a JSON object on its standard input, and runs in the folder of the site file.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from tempfile import TemporaryFile
from typing import Any

from fleet.rollout.show import NAME
from fleet.shared.fleet import Fleet

WITHIN_S = 300.0
_SAID_MAX = 400  # characters of its output


def call(fleet: Fleet, argv: Sequence[str], said: Mapping[str, Any]) -> str:
    """Run a program to its end, or end it after `WITHIN_S`. Return what went wrong, or ""."""
    fleet.report.doing(NAME, f"waiting for {argv[0]}")
    with TemporaryFile() as output:  # a pipe would wait for what the program leaves behind
        try:
            done = subprocess.run(
                argv,
                cwd=fleet.base,
                input=f"{json.dumps(said)}\n".encode(),
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=WITHIN_S,
                check=False,
            )
            trouble = f"{argv[0]} ended with {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            trouble = f"{argv[0]} did not end within {WITHIN_S:.0f} s"
        except OSError as error:
            trouble = f"{argv[0]} cannot be run: {error.strerror}"
        finally:
            fleet.report.doing(NAME, "")
        output.seek(max(0, output.seek(0, 2) - _SAID_MAX))
        words = output.read().decode(errors="replace").strip()
    return f"{trouble}: {words}" if trouble and words else trouble


def tell(fleet: Fleet, argv: Sequence[str], said: Mapping[str, Any]) -> None:
    """Call a program that has nothing to decide, if there is one. Its failure is a warning."""
    if argv and (trouble := call(fleet, argv, said)):
        fleet.report.warning(NAME, f"a hook failed: {trouble}")
