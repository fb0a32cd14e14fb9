"""What the controller has made and keeps, so that it is made once: one maker at a time, and no more kept than is of use."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from inventory.errors import DerpfleetError

Progress = Callable[[str], None]
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
def locked(lock: Path) -> Iterator[None]:
    """Holds a lock, over threads and processes, so that there is one maker at a time: what many want is made once and then found.

    Raises CacheError where nothing can be kept, as where somebody else made the folder.
    """
    with ours(lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def alone(folder: Path) -> AbstractContextManager[None]:
    """Makes us the one maker in this folder. Raises CacheError."""
    return locked(folder / ".lock")


def make_once(home: Path, make: Callable[[Path], None]) -> Path:
    """Makes the folder `home` if it is not there: `make(partial)` makes it under another name, and it is renamed when whole.

    Has a lock of its own, so that `make` may make another thing beside it. Raises CacheError.
    """
    if home.is_dir():
        return home
    with locked(home.with_name(f"{home.name}.lock")):
        if not home.is_dir():
            partial = home.with_name(f"{home.name}.partial")
            _remove_partial(partial)
            make(partial)
            partial.rename(home)
    return home


def _remove_partial(folder: Path) -> None:
    """Removes what a maker left that was cut short, but nothing that is mounted there."""
    done = subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise CacheError("what is left of an earlier try cannot be removed", where=str(folder), why=done.stderr.strip()[-800:])


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
