"""The Go test program of `tests/go`, and how it is called."""

from __future__ import annotations

from pathlib import Path

from artefacts import go
from bench.relay import servers
from inventory.checkout import CACHE

SOURCE = Path(__file__).parents[1] / "go"


def build() -> Path:
    """The program, built once from its checked-in sums, with the library's WebSocket client in it."""
    return go.build(SOURCE, cache=CACHE, progress=print, packages=(".",)) / "go"


def argv(program: Path, target: servers.Running, transport: str) -> list[str]:
    """Its arguments for a relay; `transport` as its flag has it."""
    url = f"{'https' if target.ca else 'http'}://{servers.HOST}:{target.port}/derp"
    call = [str(program), "-url", url, "-dial", target.address, "-transport", transport]
    return [*call, "-ca", str(target.ca)] if target.ca else call
