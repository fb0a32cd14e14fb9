"""The site's control server, with the ways to it and to the operator's terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control import servers
from control.contract import ControlServer
from control.derpmap import Pins
from control.web import WebAnswer, WebQuestion
from engine.facts import Ask
from engine.report import Report
from engine.run import Job, Outcome
from engine.session import Session
from fleet.shared import pins, web
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

    def pins(self, hosts: Sequence[Host]) -> Pins:
        """Return the pins of these hosts, as far as they are known."""
        return pins.known(self.fleet, hosts)
