"""`invoke init`: a first site file."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import inventory
from engine.report import Report
from fleet.shared import site_choice
from fleet.shared.errors import CannotWrite, WouldOverwrite


def init(report: Report, path: Path | None) -> None:
    """Write the commented example to `path`, by default to the checkout's own place.

    Raises WouldOverwrite, CannotWrite.
    """
    path = path or Path(os.path.relpath(site_choice.OWN))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(inventory.init_text())
    except OSError as error:
        if path.is_file():
            raise WouldOverwrite(
                f"{path} exists already, and invoke init never overwrites a file",
                next="edit it, or give another name: invoke init --path FILE",
            ) from None
        raise CannotWrite(
            f"{path} cannot be written: {error.strerror}", next="give another place: invoke init --path FILE"
        ) from None
    site = "" if path.resolve() == site_choice.OWN else f" --site {shlex.quote(str(path))}"
    report.say(
        f"{path} is written. Edit it, then run:\n"
        f"  invoke trust --host NAME{site}\n"
        f"  invoke deploy --host NAME{site}"
    )
