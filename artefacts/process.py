"""A command on the controller that ends in time, and with its caller."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from inventory.errors import DerpfleetError

# A command whose caller was killed keeps no core busy, and writes nothing into a later run's files.
DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM", "--")


def execute(
    argv: Sequence[str],
    *,
    error: type[DerpfleetError],
    what: str,
    timeout_s: float,
    input: str | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, which may be a failure.

    Raises `error` with `what` when it does not end in time.
    """
    try:
        return subprocess.run(
            [*DIES_WITH_PARENT, *argv], input=input, timeout=timeout_s, env=environment, cwd=cwd,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        why = f"it did not end within {timeout_s:g} s"
        raise error(what, where=shlex.join(argv), why=why) from None
