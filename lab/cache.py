"""Things that are costly to make and the same for every lab: made once, then found by name."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

from lab.process import run

Progress = Callable[[str], None]


def made_once(home: Path, make: Callable[[Path], None]) -> Path:
    """The folder `home`; if it is not there, `make(partial)` makes it under another name and it is renamed when whole.

    Of two callers at once, in whatever process, the second waits for the first.
    """
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.is_dir():
            partial = home.with_name(f"{home.name}.partial")
            remove_tree(partial)
            make(partial)
            partial.rename(home)
    return home


def remove_tree(folder: Path) -> None:
    """Remove a folder and what is in it, but nothing that is mounted there."""
    run(["rm", "-rf", "--one-file-system", str(folder)], timeout_s=300)
