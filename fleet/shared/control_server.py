"""The site's control server, with the ways to it and to the operator's terminal."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from control import servers
from control.contract import ControlServer
from control.derpmap import Pins
from control.web import WebAnswer, WebQuestion
from engine import cache
from engine.facts import Ask
from engine.report import Report
from engine.run import Job, Outcome
from engine.session import Session
from fleet.shared import pins, web
from fleet.shared.errors import CannotRead, CannotWrite
from fleet.shared.fleet import Fleet
from fleet.shared.locks import once_free
from fleet.shared.step import step
from inventory.model import Host
from inventory.secrets import Secret, read_secret


def control_server(fleet: Fleet) -> ControlServer:
    """Return the site's control server."""
    return servers.chosen(fleet.site, FleetReach(fleet))


@dataclass(frozen=True)
class FleetReach:
    """The fleet, as `control.contract.Reach` describes it."""

    fleet: Fleet

    @property
    def report(self) -> Report:
        """Return the verb's report."""
        return self.fleet.report

    def session(self, ask: Ask) -> Session:
        """Connect to the control server's host, only to read. Raises DerpfleetError."""
        [login] = self.fleet.control_logins()
        return self.fleet.session_for_reading(login, ask)

    def step(self, job: Job) -> Outcome:
        """Run a job on the control server's host, once no other command is at work there.

        Raises as `fleet.shared.step.step` does.
        """
        [login] = self.fleet.control_logins()
        return once_free(self.report, login.name, lambda: step(self.fleet, login, job))

    def fetch(self, question: WebQuestion) -> WebAnswer:
        """Ask over https, from the controller. Raises NoWebAnswer."""
        return web.fetch(question)

    def secret(self, reference: str) -> Secret:
        """Return a secret of the site file. Raises SecretError."""
        return read_secret(reference, base=self.fleet.base)

    def read_file(self, path: str) -> str:
        """Return the text of a file here; "" when there is none. Raises CannotRead."""
        try:
            return Path(path).read_bytes().decode()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise CannotRead(
                f"{path} cannot be read", why=getattr(error, "strerror", "") or "it is not UTF-8 text"
            ) from None

    def rewrite_file(self, path: str, change: Callable[[str], str]) -> tuple[str, str]:
        """Write what `change` makes of the text of a file here. Returns both texts.

        Its folder is locked meanwhile. Raises CannotRead, CannotWrite, and what `change` raises.
        """
        try:
            folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                before = self.read_file(path)
                after = change(before)
                if after != before:
                    cache.write(Path(path), after.encode())
                return before, after
            finally:
                os.close(folder)
        except OSError as error:
            why = f"{error.filename or path}: {error.strerror}"
            raise CannotWrite(f"{path} cannot be written", why=why) from None

    def pins(self, hosts: Sequence[Host]) -> Pins:
        """Return the pins of these hosts, as far as they are known."""
        return pins.known(self.fleet, hosts)
