"""Releases as a host unpacks them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from artefacts.release import Release


def unpack(release: Release, folder: Path) -> None:
    """Unpack with tar: tarfile checks entries from 3.11.4 on only, and Debian 12 has 3.11.2."""
    folder.mkdir(exist_ok=True)
    for path in (release.path, *release.shared):
        subprocess.run(["tar", "--extract", "--file", str(path), "--directory", str(folder)], check=True)
