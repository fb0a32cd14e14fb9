"""Small files that the lab lays out."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from lab.debian import ADMIN
from lab.process import run


def make_keys(folder: Path) -> None:
    """The lab's ssh key, and the password of the login that has one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / "id_ed25519").exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(folder / "id_ed25519")])
    password = folder / f"{ADMIN}.password"
    password.touch(mode=0o600)
    password.write_text(f"{secrets.token_urlsafe(12)}\n")


def write_tree(
    root: Path, files: Mapping[str, str | bytes], *, mode: int = 0o644, folder_mode: int = 0o755, owner: tuple[int, int] = (0, 0)
) -> None:
    """Write files below `root`; folders that are not there are made, with the owner of the files."""
    for name, content in files.items():
        path = root / name
        missing = [folder for folder in path.parents if (folder == root or root in folder.parents) and not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=folder_mode)
            os.chown(folder, *owner)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        os.chown(path, *owner)
