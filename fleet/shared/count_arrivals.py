"""Ask the relays' hosts which packets arrive, where a proof had no answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from engine.facts import Ask
from engine.scripts import script
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.arrivals import Arrivals, Unanswered, explained, knock, read_arrivals, unanswered
from probe.proof import Proof
from probe.target import Target

_COUNT_S = 4  # of the 20 s that a question may take


def with_arrivals(fleet: Fleet, host: Host, target: Target, proof: Proof) -> Proof:
    """Return the proof; a time-out says whether the packets got as far as the host.

    A proof without one is returned at once. A host that cannot be asked leaves it as it is.
    """
    places = [place for rung in proof.rungs if (place := unanswered(rung))]
    if not places:
        return proof
    fleet.report.doing(host.name, "proof: which packets arrive at the host")
    try:
        return explained(target, proof, _counted(fleet, host, places))
    except (DerpfleetError, ValueError, TypeError):
        return proof


def _counted(fleet: Fleet, host: Host, places: list[Unanswered]) -> dict[str, Arrivals]:
    """Return what the host counts while the places are asked again.

    Raises DerpfleetError, ValueError, TypeError.
    """
    names = sorted({place.name for place in places})
    argv = (host.ssh.python, "-I", "-c", script("count_arrivals"), str(_COUNT_S), *names)
    with (
        fleet.session_for_reading(fleet.login(host), Ask()) as session,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(session.ask, Ask(commands={"arrivals": argv}))
        knock(places, answer.done)
        return read_arrivals(answer.result().commands["arrivals"].stdout)
