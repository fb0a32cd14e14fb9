"""Programs of Debian packages that must not be installed for a test: nginx would take port 80 of
the developer's machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

CACHE = Path(__file__).parent.parent.parent / ".cache" / "packages"


def program(package: str, name: str) -> str:
    """Return the path of a program: this machine's, or one from its package, unpacked and not
    installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found:
        return found
    return unpacked(package, f"usr/sbin/{name}", f"usr/bin/{name}")


def unpacked(package: str, *paths: str) -> str:
    """Return the first of these paths that the package has, unpacked and not installed."""
    folder = CACHE / package
    if not any((folder / path).exists() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package], cwd=folder, check=True
        )
        (archive,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
    return next(str(folder / path) for path in paths if (folder / path).exists())
