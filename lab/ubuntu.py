"""An Ubuntu 24.04 as a provider hands it over, made of Debian's programs.

What it says of itself and its Python are as on Ubuntu. It has ufw, which is off, sudo-rs as `sudo`,
and a `cloud-final.service` that works with packages when it is started, as cloud-init does after
the first boot.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from engine.cache import Progress, make_once
from lab import debian, pythons

MORE = ("ufw", "sudo-rs")
LIKENESS = Path(__file__).parent / "templates" / "ubuntu"
OWN_PYTHON = "3.12"
SUDO = "usr/local/bin/sudo"  # before the real one in every PATH
SUDO_RS = "/usr/lib/cargo/bin/sudo"


def base(suite: str, *, cache: Path, progress: Progress) -> Path:
    """Return the folder of the root; make it first if it is not there. Raises LabError, CacheError.

    `suite`: the release of Debian that it is made of.
    """

    def make(partial: Path) -> None:
        began = time.monotonic()
        progress("Ubuntu root: fetching and unpacking packages (about half a minute)")
        debian.bootstrap(partial, suite=suite, more=MORE)
        for part in ("etc", "usr"):
            shutil.copytree(LIKENESS / part, partial / part, dirs_exist_ok=True)
        pythons.install(partial, OWN_PYTHON, "usr/local/bin/python3")
        (partial / SUDO).symlink_to(SUDO_RS)
        progress(f"Ubuntu root: made in {time.monotonic() - began:.0f} s")

    files = [path.read_text() for path in sorted(LIKENESS.rglob("*")) if path.is_file()]
    files += [Path(__file__).read_text(), Path(pythons.__file__).read_text()]
    return make_once(cache / "lab" / f"base-ubuntu-{debian.key_of(suite, *debian.PACKAGES, *files)}", make)
