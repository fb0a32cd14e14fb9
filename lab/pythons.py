"""A CPython of another version for a host, from this machine's pyenv."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.process import run

VERSIONS = Path("~/.pyenv/versions")
_LEFT_OUT = shutil.ignore_patterns(
    "test", "tests", "lib2to3", "libpython*", "config-*", "site-packages", "__pycache__"
)


def found(version: str) -> Path | None:
    """Return the folder of this machine's CPython of a version such as 3.9, or None."""
    return max(VERSIONS.expanduser().glob(f"{version}.*"), default=None)


def install(root: Path, version: str, *links: str) -> bool:
    """Put CPython of this version (such as 3.9) into a root, with links to it.

    Returns False when this machine has none: the root keeps its own.
    """
    source = found(version)
    if source is None:
        return False
    python, place = f"python{version}", root / "usr/local"
    shutil.copytree(source / "lib" / python, place / "lib" / python, symlinks=True, ignore=_LEFT_OUT)
    for library in (source / "lib").glob(f"lib{python}.so*"):
        shutil.copy2(library, place / "lib" / library.name, follow_symlinks=False)
    shutil.copy2(source / "bin" / python, place / "bin" / python)
    run(["chroot", str(root), "ldconfig"])
    compiled = ["-m", "compileall", "-q", f"/usr/local/lib/{python}"]
    run(["chroot", str(root), f"/usr/local/bin/{python}", *compiled], timeout_s=300)
    for link in links:
        (root / link).unlink(missing_ok=True)
        (root / link).parent.mkdir(parents=True, exist_ok=True)
        (root / link).symlink_to(f"/usr/local/bin/{python}")
    return True
