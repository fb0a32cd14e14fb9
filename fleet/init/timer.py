"""`invoke init --timer`: a user's systemd timer that looks at the relays every five minutes."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from engine.report import Report
from fleet.shared import site_choice
from fleet.shared.errors import CannotWrite, WouldOverwrite
from inventory.checkout import CHECKOUT
from inventory.errors import DerpfleetError

NAME = "derpfleet-status"
_SERVICE = """\
[Unit]
Description=Look at the DERP relays from outside, and tell when one breaks
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
WorkingDirectory={checkout}
ExecStart={command}
TimeoutStartSec=240
"""
_TIMER = """\
[Unit]
Description=Look at the DERP relays every five minutes

[Timer]
OnCalendar=*:0/5
RandomizedDelaySec=20
Persistent=false

[Install]
WantedBy=timers.target
"""


def write_timer(report: Report, site: str, textfile: str) -> None:
    """Write both units for the user's own systemd. Raises WouldOverwrite, CannotWrite.

    `site`: the site file; "" for the default one. `textfile`: metrics are written there as well.
    """
    chosen = site_choice.chosen(site).absolute()
    if not chosen.exists():
        words = "write it first: invoke init"
        raise DerpfleetError(f"there is no site file {chosen}", next=words)
    argv = [str(Path(sys.executable).with_name("invoke")), "status", "--site", str(chosen), "--notify"]
    argv += ["--textfile", str(Path(textfile).absolute())] if textfile else []
    command = " ".join(map(_word, argv))
    folder, checkout = _folder(), str(CHECKOUT).replace("%", "%%")
    texts = {
        folder / f"{NAME}.service": _SERVICE.format(checkout=checkout, command=command),
        folder / f"{NAME}.timer": _TIMER,
    }
    if there := [path for path in texts if path.exists()]:
        step = f"look at it; to write it anew: rm {shlex.quote(str(there[0]))}"
        raise WouldOverwrite(f"{there[0]} exists already", next=step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.write_text(text)
    except OSError as error:
        raise CannotWrite(f"{folder} cannot be written", why=error.strerror or "") from None
    report.say(
        f"{folder}/{NAME}.service and .timer are written. Secrets by env: come from there: add "
        "EnvironmentFile= to the service. Then run:\n"
        f"  systemctl --user daemon-reload && systemctl --user enable --now {NAME}.timer\n"
        "  loginctl enable-linger        # so that it runs while you are not logged in"
    )


def _folder() -> Path:
    """Return where systemd looks for the units of this user."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "systemd" / "user"


def _word(text: str) -> str:
    """Return a word of a unit file. systemd expands % and $, and takes quotes off."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"'
