"""Go's derper for a host without a container, built from pinned sums (`derper/`).

The sums of all modules are checked in, so that no mirror of them (GOPROXY) can change a byte.
"""

from __future__ import annotations

from pathlib import Path

from artefacts import go
from artefacts.programs import DERPER
from artefacts.release import Release, archive, kept, made
from engine.cache import Progress
from engine.plan import sha256

SOURCE = Path(__file__).with_name("derper")
VERSION = sha256(SOURCE / "go.sum")
"""A text that changes with derper's version."""


def build_derper(arch: str, *, cache: Path, progress: Progress) -> Release:
    """Return the release of derper for one of its architectures. It is built at most once.

    Raises Offline, GoError.
    """
    name, key = f"derper-{arch}", go.built_in(SOURCE, cache=cache, arch=arch).name.rpartition("-")[2]
    if there := made(cache, name, key):
        return there
    folder = go.build(SOURCE, cache=cache, progress=progress, arch=arch)

    def make() -> bytes:
        return archive({DERPER.program: (folder / "derper").read_bytes()}, mode=0o755)

    return kept(cache, name, key, make)
