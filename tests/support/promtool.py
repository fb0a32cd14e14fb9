"""promtool of Debian's package prometheus, which is not installed: it is unpacked below .cache."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from engine.cache import make_once
from inventory.checkout import CACHE


def promtool() -> Path:
    """Return the path of the program, the machine's own or one that is fetched once."""
    if own := shutil.which("promtool"):
        return Path(own)
    return make_once(CACHE / "promtool", _fetched) / "usr" / "bin" / "promtool"


def _fetched(folder: Path) -> None:
    folder.mkdir(parents=True)
    subprocess.run(["apt-get", "download", "-q", "prometheus"], cwd=folder, check=True, capture_output=True)
    [package] = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True, capture_output=True)
    package.unlink()
