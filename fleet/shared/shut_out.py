"""Hold a deploy back that would restart a relay while it could admit nobody.

Clients come back to a restarted relay within seconds. One that asks an admission controller about
each of them, and gets no answer, refuses them all.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.events import Event
from engine.facts import Ask, Facts
from engine.generations import Stored
from engine.plan import compile_plan
from engine.resource import Resource
from engine.run import NOTHING, Job
from fleet.shared import cut_over
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.admission import HostsWords, silence_of
from relay.core.handshake import format_key, make_private_key, public_key
from roles import relay
from roles.relay.contract import Inquiry

Wanted = Sequence[Resource] | Stored
_QUESTION = "admission_before"


class WouldShutOut(DerpfleetError):
    """The relay would refuse its clients after the restart; nothing was changed."""

    exit_code = 6


def ask(fleet: Fleet, host: Host) -> Ask:
    """Return the question to the host whether it gets an answer about a client; maybe none."""
    inquiry = _inquiry(fleet, host)
    if inquiry is None:
        return NOTHING
    return Ask(commands={_QUESTION: (host.ssh.python, "-I", "-c", *inquiry.program)})


def words(fleet: Fleet, host: Host, facts: Facts) -> HostsWords | None:
    """Return the host's answer to `ask`; None when there was no question."""
    inquiry = _inquiry(fleet, host)
    if inquiry is None or _QUESTION not in facts.commands:
        return None
    return HostsWords(judge=inquiry.judge, answer=facts.said(_QUESTION))


def _inquiry(fleet: Fleet, host: Host) -> Inquiry | None:
    stranger = format_key(public_key(make_private_key()))
    found = relay.inquiry(host, fleet.site, stranger)
    return found if found and found.is_vital else None


def refuse(fleet: Fleet, host: Host, job: Job, wanted: Wanted, facts: Facts) -> None:
    """Raise WouldShutOut when there is no answer and the plan would restart a relay that runs.

    Only without an answer the host is asked what the plan would change.
    """
    said = words(fleet, host, facts)
    silence = silence_of(said) if said else None
    if said is None or silence is None or not cut_over.runs(facts):
        return
    if _would_restart(fleet, host, job, wanted):
        raise WouldShutOut(
            f"not begun: {host.name} gets no answer from {said.judge}, and restarting it now would shut "
            "its nodes out",
            host=host.name,
            why=f"{silence.detail}; {silence.cause}",
            next=(
                f"on the relay's host: {silence.look}; then run: invoke {job.verb} --host {host.name}; "
                "relay.verify_fail_open: true admits everybody meanwhile"
            ),
        )


def _would_restart(fleet: Fleet, host: Host, job: Job, wanted: Wanted) -> bool:
    changed: list[str] = []

    def hear(event: Event) -> None:
        if event["event"] == "result" and event["status"] == "changed":
            changed.append(event["id"])

    with fleet.session_for_reading(fleet.login(host), NOTHING, on_event=hear) as session:
        if isinstance(wanted, Stored):
            session.bring_back(wanted, mode="check")
        else:
            session.apply(compile_plan(wanted, mode="check", only=job.only))
    return relay.chosen_runner(host).RUNNING in changed
