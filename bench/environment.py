"""Virtual environments for programs that are measured, each made from a lock, hashes checked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from inventory import checkout
from inventory.checkout import CHECKOUT

CACHE = checkout.CACHE / "bench"


def environment(lock: Path) -> Path:
    """Return the virtual environment of `lock`, made anew when the lock has changed."""
    folder = CACHE / lock.stem
    made = folder / "made-from.lock"
    if not made.exists() or made.read_text() != lock.read_text():
        name = lock.relative_to(CHECKOUT)
        print(f"installing {lock.stem} from {name} …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin/pip"), "-q", "install", "--require-hashes", "--no-deps"]
        subprocess.run([*pip, "-r", str(lock)], check=True)
        made.write_text(lock.read_text())
    return folder
