"""One run of one program through the proxy: wall time, the controller's CPU time, turns, bytes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench.deploy.tools import Program
from lab.delaying import Delaying

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


@dataclass(frozen=True)
class Run:
    """One run of a program.

    `wall_s` is the whole program's time, `wire_s` the part from the first connection to the last
    byte.

    `cpu_s` is that of every process on the controller's side: the program, its children, and ssh
    masters that it leaves behind.
    """

    wall_s: float
    wire_s: float
    cpu_s: float
    turns: int
    bytes_up: int
    bytes_down: int
    connections: int
    changed: int


def measured(program: Program, proxy: Delaying) -> Run:
    """Run the program once. Raises RuntimeError with its output when it fails."""
    adopt_orphans()
    proxy.counts(reset=True)
    before, start = _cpu_s(), time.monotonic()
    done = subprocess.run(
        program.argv, env=os.environ | program.env, capture_output=True, text=True, check=False, timeout=900
    )
    wall_s = time.monotonic() - start
    counts = proxy.counts(reset=True)
    _end_orphans()
    cpu_s = _cpu_s() - before
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(program.argv)} ended with "
            f"{done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    changed = program.changes(done.stdout + done.stderr if "pyinfra" in program.argv[0] else done.stdout)
    return Run(
        wall_s,
        counts.wire_s,
        cpu_s,
        counts.turns,
        counts.bytes_up,
        counts.bytes_down,
        counts.connections,
        changed,
    )


def adopt_orphans() -> None:
    """Become the parent of processes that a measured program leaves behind.

    Their CPU time is then counted, and they can be ended.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _end_orphans() -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        children = [
            pid
            for task in Path("/proc/self/task").iterdir()
            for pid in (task / "children").read_text().split()
        ]
        if not children:
            return
        for pid in children:
            os.kill(int(pid), signal.SIGTERM)
        time.sleep(0.05)
    raise RuntimeError("processes that a measured program left behind do not end")


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
