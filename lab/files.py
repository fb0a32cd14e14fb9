"""Files laid out in a tree, and trees removed."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from lab.process import run


def write_tree(
    root: Path, files: Mapping[str, str | bytes], *, mode: int = 0o644, like: Path | None = None
) -> None:
    """Write files below `root`.

    Missing folders are made with mode and owner of the same folder below `like`.

    A file belongs to the owner of its folder, as in a home directory.
    """
    for name, content in files.items():
        path = root / name
        missing = [
            folder
            for folder in path.parents
            if (folder == root or root in folder.parents) and not folder.exists()
        ]
        for folder in reversed(missing):
            model = None if like is None else like / folder.relative_to(root)
            _make_folder(folder, model if model is not None and model.is_dir() else None)
        path.touch(mode=mode)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def remove_tree(folder: Path) -> None:
    """Remove a folder and its contents, but nothing that is mounted there."""
    run(["rm", "-rf", "--one-file-system", str(folder)], timeout_s=300)


def _make_folder(folder: Path, model: Path | None) -> None:
    """Make a folder like `model`; without one it belongs to the owner of its parent."""
    folder.mkdir()
    wanted = (model or folder.parent).stat()
    folder.chmod(stat.S_IMODE(wanted.st_mode) if model else 0o755)
    os.chown(folder, wanted.st_uid, wanted.st_gid)
