"""Take a relay off its host, in the lab's network: `python -m tests.e2e.taken_off SITE HOST`.

Prints the ids of the changed resources, and ends with 1 and the reasons when one fails.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import inventory
import roles
from engine.facts import Ask, Facts
from engine.plan import Mode
from engine.report import Report
from engine.resource import Resource
from engine.run import NOTHING, Verb, converge
from engine.session import Session
from fleet.shared.fleet import Fleet
from inventory.model import Host


@dataclass(frozen=True)
class Removal:
    """The job: nothing of the host's roles is left."""

    host: Host
    verb: Verb = Verb.RUN
    mode: Mode = "apply"
    only: tuple[str, ...] = ()

    @property
    def ask(self) -> Ask:
        return roles.ask_absent()

    def plan(self, session: Session) -> list[Resource]:
        return roles.compile_absent(self.host, session.facts)

    def afterwards(self, _: Facts) -> Ask:
        return NOTHING


def main(path: str, name: str) -> int:
    site = inventory.load(Path(path))
    fleet = Fleet(site, Report())
    outcome = converge(fleet.login(site.hosts[name]), Removal(site.hosts[name]), runs=fleet.runs)
    print(json.dumps(outcome.changed))
    for failure in outcome.failures:
        print(failure, file=sys.stderr)
    return 0 if outcome.ok else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
