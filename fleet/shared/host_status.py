"""Read the status of a running host, without its lock and without changing anything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.crash import made_of_facts
from engine.facts import Ask, Facts
from engine.generations import History, UnconfirmedChanges
from engine.run import Verb
from engine.scripts import script
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.cutover import CLIENTS
from roles import paths, relay

VERSION = re.compile(r'^version\{.*?version="([^"]+)"', re.M)
RELEASE = re.compile(r'^relay_release\{id="([0-9a-f]{1,64})"\}', re.M)
IMAGE = re.compile(r"(\S+) (sha256:[0-9a-f]{64})")
STAMP = re.compile(rf"^(\d{{4}}-\d\d-\d\d)T(\d\d)-(\d\d)-(\d\d)Z-{Verb.DEPLOY}-", re.M | re.A)

_IMAGE_OF = "{{.Config.Image}} {{.Image}}"
_FAR_MS = 60_000.0  # more is no distance: the script waits 2 s


@dataclass(frozen=True)
class HostStatus:
    """The status that a host reports; a field that it does not report is empty or None.

    `release`: the id of our relay's release, or of a container's image. `generation`: the newest
    one. `unconfirmed`: the changes after it. `distances_ms`: to the other hosts, by TCP. `trouble`:
    why the host could not be asked.
    """

    version: str = ""
    release: str = ""
    clients: int | None = None
    last_deploy: str = ""
    generation: int = 0
    unconfirmed: UnconfirmedChanges = field(default_factory=UnconfirmedChanges)
    withdrawn: bool = False
    distances_ms: Mapping[str, float] = field(default_factory=dict)
    trouble: DerpfleetError | None = None


def read_status(fleet: Fleet, host: Host, others: Sequence[Host]) -> HostStatus:
    """Ask one host. Never raises: an error is in `trouble`."""
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
    return Ask(
        files=relay.ASK_WITHDRAWN.files,
        commands={
            "metrics": (*python, *relay.metrics(host)),
            "image": ("docker", "container", "inspect", "--format", _IMAGE_OF, paths.CONTAINER),
            "journal": ("ls", "-1r", f"{paths.AGENT}/journal"),
            "distances": (*python, script("connect_times"), *places),
        }
    )


def _read(host: Host, facts: Facts) -> HostStatus:
    said = {name: output.stdout for name, output in facts.commands.items()}
    metrics, image = said.get("metrics", ""), IMAGE.fullmatch(said.get("image", "").strip())
    version, clients, release = (one.search(metrics) for one in (VERSION, CLIENTS, RELEASE))
    deployed = STAMP.search(said.get("journal", ""))
    return HostStatus(
        version=version[1] if version else image[1] if image else "",
        release=release[1] if release else image[2] if image else "",
        clients=int(clients[1]) if clients else None,
        last_deploy="{} {}:{}:{}".format(*deployed.groups()) if deployed else "",
        withdrawn=relay.is_withdrawn(facts),
        distances_ms=_distances(said.get("distances", "")),
    )


def _with_history(status: HostStatus, history: History) -> HostStatus:
    return replace(status, generation=history.newest, unconfirmed=history.unconfirmed)


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
