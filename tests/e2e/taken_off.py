"""Take a relay off its host, in the lab's network: `python -m tests.e2e.taken_off SITE HOST`.

Prints the ids of the changed resources, and ends with 1 and the reasons when one fails.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import inventory
import roles
from engine.report import Report
from engine.resource import Resource
from engine.run import Job, Verb, converge
from engine.session import Session
from fleet.shared.fleet import Fleet


def main(path: str, name: str) -> int:
    site = inventory.load(Path(path))
    fleet, host = Fleet(site, Report()), site.hosts[name]

    def plan(session: Session) -> list[Resource]:
        assert roles.absence_refusals(host, session.facts) == []
        return roles.compile_absent(host, session.facts)

    job = Job(verb=Verb.WITHDRAW, plan=plan, ask=roles.ask_absent())
    outcome = converge(fleet.login(host), job, runs=fleet.runs)
    print(json.dumps(outcome.changed))
    for failure in outcome.failures:
        print(failure, file=sys.stderr)
    return 0 if outcome.ok else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
