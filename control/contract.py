"""The contract of a control server: the place where clients get their DERP map from.

`control.servers` has the table. A control server describes questions and jobs. It opens no
connection itself: `Reach`, which `fleet` provides, carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from control.derpmap import Pins
from control.served import Served, Unknown
from control.web import WebAnswer, WebQuestion
from engine.facts import Ask, Facts
from engine.report import Report
from engine.run import Job, Outcome
from inventory.errors import DerpfleetError
from inventory.model import Host
from inventory.secrets import Secret


class TooFewRelays(DerpfleetError):
    """The map was not changed: it takes these regions together with one more that is proved."""


class HostSession(Protocol):
    """A connection to one host. `facts` holds every answer so far."""

    facts: Facts

    def ask(self, ask: Ask) -> Facts:
        """Return the facts with the answers to `ask` added. Raises DerpfleetError."""


class Reach(Protocol):
    """The way from a control server to its host and to the operator. `fleet` provides it."""

    @property
    def report(self) -> Report:
        """Return the report that the operator reads."""

    def session(self, ask: Ask) -> AbstractContextManager[HostSession]:
        """Connect to the control server's host, only to read. Raises DerpfleetError."""

    def step(self, job: Job) -> Outcome:
        """Run a job on the control server's host.

        Raises ResourceFailed for the first resource that failed.
        """

    def fetch(self, question: WebQuestion) -> WebAnswer:
        """Ask over https. Raises NoWebAnswer."""

    def secret(self, reference: str) -> Secret:
        """Return a secret of the site file. Raises SecretError."""

    def read_file(self, path: str) -> str:
        """Return the text of a file of the controller; "" when there is none.

        Raises DerpfleetError.
        """

    def rewrite_file(self, path: str, change: Callable[[str], str]) -> tuple[str, str]:
        """Write what `change` makes of that text, all of it or nothing. Returns both texts.

        Another command that changes the file is waited for. Raises DerpfleetError.
        """

    def pins(self, hosts: Sequence[Host]) -> Pins:
        """Return the known pins of the hosts whose certificates are self-signed."""


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """A relay that is in the map and is about to leave it.

    `others`: the hosts of which one has to be proved first; None where nodes have Tailscale's own
    relays. `served`: the map to prove them against. `nodes_at_home`: returns the names of the nodes
    that are online and whose home is this relay, or None when they are not known. It raises
    DerpfleetError. `refuse_removal`: raises DerpfleetError when its regions may not leave the map.
    """

    others: Sequence[Host] | None
    served: Served
    nodes_at_home: Callable[[], list[str] | None]
    refuse_removal: Callable[[], object] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Look:
    """A control server as it is now.

    `program`: its name and version. `in_map`: the names of the site's hosts that have a region of
    their own in its files, by a present or a former id.
    """

    program: str
    served: Served
    in_map: Set[str]


class ControlServer(Protocol):
    """Where clients get their DERP map from."""

    def look(self) -> Look | None:
        """Return the control server as it is now; None where nobody can be asked.

        Raises DerpfleetError.
        """

    def served(self) -> Served:
        """Return the map that clients get, or why it is not known. Never raises."""

    def unasked(self, why: str) -> Unknown:
        """Return why the map is not asked for now: `why`, unless it can never be asked for."""

    def check(self, hosts: Sequence[Host]) -> int:
        """Show the changes that `register` would make, and return their number. Changes nothing."""

    def register(self, proved: Sequence[Host], *, all_proved: Sequence[Host]) -> Served | None:
        """Put the regions of `proved` into the map, all at once or not at all.

        `all_proved`: these relays and those that an earlier run proved. Returns the map that
        clients get then; None when a person has to change it later. Raises DerpfleetError, when
        the previous map is in force, and TooFewRelays.
        """

    def not_proved(self, host: Host) -> None:
        """Show what happens to the host's region in the map, as its relay is not proved."""

    def withdrawal(self, host: Host) -> AbstractContextManager[Withdrawal | None]:
        """Return the state of this relay in the map; None when it is not there.

        The relay is stopped inside the block. Raises DerpfleetError.
        """

    def take_out(self, host: Host) -> None:
        """Take every region of a stopped relay out of the map. Raises DerpfleetError."""
