"""One run of the load generator, with the server's usage read at each of its events."""

from __future__ import annotations

import json
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artefacts import go
from bench.relay import procfs
from bench.relay.servers import Running
from inventory.checkout import CACHE
from lab.programs import DERPER

SOURCE = Path(__file__).parent / "loadgen"


@dataclass(frozen=True)
class Event:
    """An event of the generator, and the server's usage at that moment."""

    fields: dict[str, Any]
    usage: procfs.Usage


Run = dict[str, Event]


def build() -> Path:
    """Return the generator, built once from its checked-in sums."""
    return go.build(SOURCE, cache=CACHE, progress=print, packages=(".",)) / "loadgen"


def build_derper() -> Path:
    """Return derper, built once from the lab's sums."""
    return go.build(DERPER, cache=CACHE, progress=print) / "derper"


def run(program: Path, args: list[str], server: Running, cpu: int | None, timeout_s: float) -> Run:
    """Run the generator against `server`, on one core if `cpu` is given; return its events by name.

    Raises RuntimeError with its complaint.
    """
    pinned = ["taskset", "-c", str(cpu)] if cpu is not None else []
    argv = [*pinned, str(program), args[0], *server.generator_flags(), *args[1:]]
    events: Run = {}
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        killer = threading.Timer(timeout_s, process.kill)
        killer.start()
        try:
            assert process.stdin is not None and process.stdout is not None and process.stderr is not None
            for line in process.stdout:
                usage = procfs.read(server.process.pid)
                fields = json.loads(line)
                events[fields.pop("event")] = Event(fields, usage)
                if fields.get("hold"):
                    process.stdin.write("\n")
                    process.stdin.flush()
            complaint = process.stderr.read()
        finally:
            killer.cancel()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {complaint.strip() or process.returncode}")
    return events
