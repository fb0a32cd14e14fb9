"""The Go test program of `tests/go`, and its arguments."""

from __future__ import annotations

from pathlib import Path

from artefacts import go
from bench.relay import servers
from inventory.checkout import CACHE

SOURCE = Path(__file__).parents[1] / "go"


def build() -> Path:
    """Build the program once, from its checked-in sums, with the library's WebSocket client."""
    return go.build(SOURCE, cache=CACHE, progress=print, packages=(".",)) / "go"


def argv(program: Path, target: servers.Running, transport: str) -> list[str]:
    """Return its arguments for a relay. `transport` is its flag's value."""
    url = f"{'https' if target.ca else 'http'}://{servers.HOST}:{target.port}/derp"
    call = [str(program), "-url", url, "-dial", target.address, "-transport", transport]
    return [*call, "-ca", str(target.ca)] if target.ca else call
