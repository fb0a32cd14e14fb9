"""`invoke init`: a first site file."""

from __future__ import annotations

from pathlib import Path

import inventory
from engine.report import Report
from inventory.errors import DerpfleetError


class WouldOverwrite(DerpfleetError):
    """There is a file already."""

    exit_code = 4


def init(report: Report, path: Path) -> None:
    """Writes the commented example to `path`. Raises WouldOverwrite."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            file.write(inventory.init_text())
    except FileExistsError:
        raise WouldOverwrite(f"{path} exists", next="edit it, or give another name: invoke init --path FILE") from None
    report.say(f"{path} written. Edit it, then:\n  invoke trust --host NAME\n  invoke deploy --host NAME")
