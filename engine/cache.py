"""Artefacts that the controller makes once and keeps: one maker at a time, old ones removed."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inventory.errors import DerpfleetError

Progress = Callable[[str], None]
KEPT = 8
IN_USE_S = 3600  # another run may be about to ship it
UNUSED_S = 30 * 86400


class CacheError(DerpfleetError):
    """The controller cannot read or write what it keeps."""


@contextmanager
def access_to(folder: Path) -> Iterator[None]:
    """Turn an OSError of the block into a CacheError. The block reads and writes below `folder`.

    A usual cause is that root made the folder.
    """
    try:
        yield
    except OSError as error:
        exists = os.path.exists  # not Path.exists, which raises where it may not look
        there = next(path for path in (folder, *folder.parents) if exists(path))
        raise CacheError(
            "the controller cannot read or write what it keeps",
            where=str(error.filename or folder),
            why=error.strerror or str(error),
            next=f"give it to your user: sudo chown -R $(id -u) {there}",
        ) from None


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold the lock file `lock` against other threads and processes: one maker at a time.

    Raises CacheError when the file cannot be made, for example because root made its folder.
    """
    with access_to(lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_once(home: Path, make: Callable[[Path], None]) -> Path:
    """Make the folder `home` unless it is there, and return it.

    `make(partial)` makes it under another name, and it is renamed when it is complete.
    The lock is its own, so `make` may make another artefact beside it. Raises CacheError.
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
    """Remove the leftovers of a maker that was killed, but no file system mounted there."""
    argv = ["rm", "-rf", "--one-file-system", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        what = "the leftovers of an earlier attempt cannot be removed"
        raise CacheError(what, where=str(folder), why=done.stderr.strip()[-800:])


def used(path: Path) -> Path:
    """Mark `path` as used now and return it.

    Only atime changes: mtime is part of the key under which its hash is memoized.
    """
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    return path


def write(path: Path, content: bytes) -> None:
    """Write the whole content or nothing, also when two programs write it or the power fails.

    A file that is there keeps its mode, and a link is followed. Raises OSError.
    """
    path = path.resolve()
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temp = path.with_name(f"{path.name}.{os.getpid()}.part")
    with temp.open("wb") as file:
        if path.exists():
            os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temp.rename(path)


def prune(folder: Path, pattern: str, *, most: int = KEPT) -> None:
    """Remove the paths of `pattern` that were not used for a month, and all but the last `most`.

    Paths used within the last hour stay. Only the holder of the folder's lock may call this.
    """
    now = time.time()
    found = [(now - path.stat().st_atime, path) for path in folder.glob(pattern)]
    by_use = sorted(found, key=lambda each: each[0])
    for number, (idle_s, path) in enumerate(by_use):
        if idle_s > UNUSED_S or (idle_s > IN_USE_S and (number >= most or path.suffix == ".part")):
            # It may be another user's, or gone meanwhile. One path too many does no harm.
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
