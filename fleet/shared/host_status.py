"""Read the status of a running host, without its lock and without changing anything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.crash import made_of_facts
from engine.facts import Ask, Facts, asked
from engine.generations import History, UnconfirmedChanges
from engine.run import Verb
from engine.scripts import script
from fleet.shared import running
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.cutover import known_clients
from roles import paths, relay
from roles.relay import OutOfService

_VERBS = f"{Verb.DEPLOY}|{Verb.ROLLOUT}"
STAMP = re.compile(rf"^(\d{{4}}-\d\d-\d\d)T(\d\d)-(\d\d)-(\d\d)Z-(?:{_VERBS})-", re.M | re.A)

_FAR_MS = 60_000.0  # more is no distance: the script waits 2 s


@dataclass(frozen=True)
class HostStatus:
    """The status that a host reports; a field that it does not report is empty or None.

    `release`: the id of our relay's release, or of a container's image. `generation`: the newest
    one, confirmed at `generation_since`, in seconds since 1970. `unconfirmed`: the changes after
    it. `distances_ms`: to the other hosts, by TCP. `state`: why its relay was stopped on purpose,
    if it was. `trouble`: why the host could not be asked.
    """

    version: str = ""
    release: str = ""
    clients: int | None = None
    last_deploy: str = ""
    generation: int = 0
    generation_since: float = 0.0
    unconfirmed: UnconfirmedChanges = field(default_factory=UnconfirmedChanges)
    state: OutOfService | None = None
    distances_ms: Mapping[str, float] = field(default_factory=dict)
    trouble: DerpfleetError | None = None


def read_status(fleet: Fleet, host: Host, others: Sequence[Host]) -> HostStatus:
    """Ask one host. Never raises: an error is in `trouble`. One of others' is not asked."""
    if not host.managed:
        return HostStatus()
    try:
        with (
            fleet.session_for_reading(fleet.login(host), _ask(host, others)) as session,
            made_of_facts(host.name),
        ):
            return _with_history(_read(host, session.facts), session.history())
    except DerpfleetError as error:
        error.host = error.host or host.name
        return HostStatus(trouble=error)


def _ask(host: Host, others: Sequence[Host]) -> Ask:
    python = (host.ssh.python, "-I", "-c")
    places = [
        f"{other.name},{other.ipv4 or other.ipv6 or other.domain},{other.ports.https}"
        for other in others
        if other.name != host.name
    ]
    its_own = Ask(
        commands={
            "journal": ("ls", "-1r", f"{paths.AGENT}/journal"),
            "distances": (*python, script("connect_times"), *places),
        }
    )
    return asked(relay.ASK_WITHDRAWN, running.ask(host), its_own)


def _read(host: Host, facts: Facts) -> HostStatus:
    found = running.running(facts)
    deployed = STAMP.search(facts.said("journal"))
    return HostStatus(
        version=found.version or found.image,
        release=found.release or found.image_id,
        clients=known_clients(running.page(facts)),
        last_deploy="{} {}:{}:{}".format(*deployed.groups()) if deployed else "",
        state=relay.out_of_service(facts),
        distances_ms=_distances(facts.said("distances")),
    )


def _with_history(status: HostStatus, history: History) -> HostStatus:
    newest = history.find(history.newest)
    known = replace(status, unconfirmed=history.unconfirmed)
    return replace(known, generation=newest.number, generation_since=newest.at) if newest else known


def _distances(text: str) -> dict[str, float]:
    """Read the script's output. Empty when the host printed anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    # NaN and the infinite are JSON to Python, and no distance to a page.
    return {name: ms for name, ms in found.items() if isinstance(ms, float) and 0 <= ms < _FAR_MS}
