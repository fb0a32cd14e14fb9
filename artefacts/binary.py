"""Go programs for hosts, each built from the pinned sums in the folder of its name here.

The sums of all modules are checked in, so that no mirror of them (GOPROXY) can change a byte.
"""

from __future__ import annotations

import re
from pathlib import Path

from artefacts import go
from artefacts.programs import Binary
from artefacts.release import Release, archive, kept, made
from engine.cache import Progress
from engine.plan import sha256


def source(binary: Binary) -> Path:
    """Return the folder that the program is built from."""
    return Path(__file__).with_name(binary.name)


def version(binary: Binary) -> str:
    """Return a text that changes with the program's version."""
    return sha256(source(binary) / "go.sum")


def module_version(binary: Binary) -> str:
    """Return the version of tailscale.com that the program is built from, such as 1.104.5."""
    module = (source(binary) / "go.mod").read_text()
    [found] = re.findall(r"^(?:require )?\s*tailscale\.com v([\w.+-]+)", module, re.M)
    return str(found)


def build_binary(binary: Binary, arch: str, *, cache: Path, progress: Progress) -> Release:
    """Return the release of the program for one of its architectures. It is built at most once.

    Raises Offline, GoError.
    """
    built = go.built_in(source(binary), cache=cache, arch=arch)
    name, key = f"{binary.name}-{arch}", built.name.rpartition("-")[2]
    if there := made(cache, name, key):
        return there
    folder = go.build(source(binary), cache=cache, progress=progress, arch=arch)

    def make() -> bytes:
        return archive({binary.program: (folder / binary.name).read_bytes()}, mode=0o755)

    return kept(cache, name, key, make)
