"""What the controller has made and keeps, so that it is made once: one maker at a time, and no more kept than is of use."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inventory.errors import DerpfleetError

KEPT = 8
IN_HAND_S = 3600  # another run may be about to ship it
FORGOTTEN_S = 30 * 86400


class CacheError(DerpfleetError):
    """There is no place for what is made."""


@contextmanager
def ours(folder: Path) -> Iterator[None]:
    """What is read and written below `folder`. Raises CacheError where that cannot be, as where root made the folder."""
    try:
        yield
    except OSError as error:
        there = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110 - Path's own raises where it may not look
        raise CacheError(
            "what is kept on this controller cannot be read or written",
            where=str(error.filename or folder),
            why=error.strerror or str(error),
            next=f"make it yours: sudo chown -R $(id -u) {there}",
        ) from None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One maker at a time, over threads and processes: hosts are often alike, and the second then finds it made.

    Raises CacheError where nothing can be kept, as where somebody else made the folder.
    """
    with ours(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def used(path: Path) -> Path:
    """The same path, remembered as in use now: by its time of access, for that of its change is what hashes are remembered by."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    return path


def write(path: Path, content: bytes) -> None:
    """The whole content or nothing, also when two write it or the power goes. What was there keeps its mode, and a link its place."""
    path = path.resolve()
    temp = path.with_name(f"{path.name}.{os.getpid()}.part")
    with temp.open("wb") as file:
        if path.exists():
            os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temp.rename(path)


def prune(folder: Path, pattern: str) -> None:
    """Removes what of `pattern` nobody has used for a month, and of the rest all but the last used. To be called by the one maker."""
    now = time.time()
    by_use = sorted(((now - path.stat().st_atime, path) for path in folder.glob(pattern)), key=lambda found: found[0])
    for number, (idle_s, path) in enumerate(by_use):
        if idle_s > FORGOTTEN_S or (idle_s > IN_HAND_S and (number >= KEPT or path.suffix == ".part")):
            with suppress(OSError):  # somebody else's, or gone meanwhile: what is too much does no harm
                shutil.rmtree(path) if path.is_dir() else path.unlink()
