"""The site, its hosts, and how to reach them. Every verb starts from here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import inventory
from engine.facts import Ask
from engine.login import Login
from engine.report import Report
from engine.session import OnEvent, Session
from fleet.shared import records
from fleet.shared.errors import NoSuchHost, NotManaged
from fleet.shared.parallel import Parallel
from inventory.model import Host, Site, Ssh
from inventory.rules import PROVER_FILE
from inventory.secrets import read_secret
from probe.keys import Prover, parse_prover, read_prover


@dataclass
class Fleet:
    """A loaded site with a report.

    `parallel` runs work for its hosts. `proved`: the names of those that this run has proved.
    """

    site: Site
    report: Report
    parallel: Parallel = field(init=False)
    proved: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.parallel = Parallel(self.report)
        self.report.align([*self.site.hosts, self.site.control.kind])

    @property
    def runs(self) -> Path:
        """Return the folder of the records of this site's hosts."""
        return records.folder_of(self.site)

    @property
    def base(self) -> Path:
        """Return the folder to which paths in the site file are relative."""
        return Path(self.site.path).parent

    @cached_property
    def prover(self) -> Prover:
        """Return the prover's keys: those that the site file names, else those of this controller.

        The latter are made on first use. Raises SecretError and ProverKeyError.
        """
        ref = self.site.prover
        if ref is None:
            return read_prover(self.runs / PROVER_FILE)
        step = f"give prover the text of a {PROVER_FILE}, such as {self.runs / PROVER_FILE}"
        return parse_prover(read_secret(ref, base=self.base), where=f"prover: {ref}", next_step=step)

    def login(self, host: Host) -> Login:
        """Return how to reach a relay host. Raises NotManaged for one that is not ours to reach."""
        if not host.managed:
            raise NotManaged(host.name)
        return self._login(host.name, host.ssh, str(host.ipv4 or host.ipv6 or host.domain))

    def control_logins(self) -> list[Login]:
        """Return how to reach the control server's hosts: none where a person pastes the map."""
        return [self._login(name, ssh, "") for name, ssh in self.site.control.hosts().items()]

    def _login(self, name: str, ssh: Ssh, address: str) -> Login:
        known_hosts = Path(self.site.known_hosts)
        return Login(name, ssh, address=address, known_hosts=known_hosts, base=self.base)

    def session_for_reading(
        self, login: Login, ask: Ask, *, on_event: OnEvent = lambda _: None
    ) -> Session:
        """Connect only to read: wait for no lock and change nothing. Raises DerpfleetError."""
        run_id = time.strftime("look-%Y-%m-%dT%H-%M-%SZ", time.gmtime())
        return Session(login, ask=ask, run_id=run_id, on_event=on_event, lock=False)

    def hosts(self, names: Sequence[str]) -> list[Host]:
        """Return the named hosts, or all, in the order of the site file. Raises NoSuchHost."""
        unknown = [name for name in names if name not in self.site.hosts]
        if unknown:
            like = get_close_matches(unknown[0], self.site.hosts, 1)
            raise NoSuchHost(
                f"no host named {', '.join(unknown)} in {self.site.path}",
                why=f"its hosts are: {', '.join(self.site.hosts)}",
                next=(
                    f"did you mean --host {like[0]}?"
                    if like
                    else "give one of them, or leave --host out for all"
                ),
            )
        return [host for name, host in self.site.hosts.items() if not names or name in names]

    def managed(self, names: Sequence[str]) -> list[Host]:
        """Return the same hosts without those whose relay somebody else runs, which are shown.

        Raises NoSuchHost, and NotManaged for such a host that is named.
        """
        hosts = self.hosts(names)
        for host in hosts:
            if not host.managed:
                if names:
                    raise NotManaged(host.name)
                self.left_to_others(host, "")
        return [host for host in hosts if host.managed]

    def left_to_others(self, host: Host, instead: str) -> None:
        """Show that a relay which somebody else runs is left alone. `instead`: what is done."""
        self.report.emit(event="not_managed", host=host.name)
        words = "managed: false, somebody else runs it"
        self.report.line(host.name, "skipped", f"{words}{': ' if instead else ''}{instead}")

    def equipped(self, names: Sequence[str], *, resolve: bool = False) -> list[Host]:
        """Return the same hosts, after checking that every local file that they name can be read.

        `resolve`: check also that their names resolve to their addresses. No host is contacted.
        Raises NoSuchHost, or SiteError with every problem.
        """
        hosts = self.hosts(names)
        chosen = [host.name for host in hosts]
        problems = inventory.file_problems(self.site, only=chosen)
        if resolve:
            problems += inventory.resolve_problems(self.site, only=chosen)
        if problems:
            raise inventory.SiteError(Path(self.site.path), problems)
        return hosts
