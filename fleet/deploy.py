"""`invoke deploy`: converge, prove, register, in this order."""

from __future__ import annotations

from collections.abc import Sequence

from control.contract import ControlServer
from engine.run import Job, Verb
from fleet.shared.confirm import Confirmation, after_going_back, run_confirmed
from fleet.shared.control_server import control_server
from fleet.shared.errors import Interrupted
from fleet.shared.fleet import Fleet
from fleet.shared.host_job import LeftWithdrawn, host_job, left_withdrawn
from fleet.shared.prove import prove_hosts
from fleet.shared.register import register
from fleet.shared.step import show_failures
from fleet.shared.verdict import Conclusion
from inventory.choices import front_of
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.proof import Proof


def deploy(
    fleet: Fleet,
    hosts: Sequence[Host],
    *,
    only: Sequence[str] = (),
    include_withdrawn: bool = True,
    keep: bool = False,
) -> int:
    """Deploy every host in order, and stop at the first that fails or is not proved.

    Such a host goes back to its newest generation, unless it has none or `keep` is set. The relays
    that are proved by then are registered, unless `only` names resources. A relay that somebody
    else runs is only proved and registered.
    `include_withdrawn`: bring withdrawn and drained relays back as well. Returns the exit code.
    """
    server = control_server(fleet)
    why = "nothing is registered with --only" if only else "compared when it is registered"
    proofs: dict[str, Proof] = {}
    code = 0
    for host in hosts:
        if not host.managed:
            proofs |= _proof_of_others(fleet, server, host, why) if not only else {}
            continue
        leaves = keep or front_of(host).is_others  # it is proved once the operator's front is ready
        judge = Confirmation(fleet, host, server.unasked(why), leaves=leaves, is_part=bool(only))
        job = host_job(fleet, host, Verb.DEPLOY, only, include_withdrawn=include_withdrawn)
        try:
            code = _converge(fleet, host, job, judge)
        except LeftWithdrawn as error:
            left_withdrawn(fleet, host, error.state)
            continue
        if code:
            break
        proof = judge.proof or prove_hosts(fleet, [host], served=judge.served)[host.name]
        if not proof.ok or judge.verdict is Conclusion.FAILED:
            fleet.report.say(
                f"{host.name} is deployed but NOT proved: it is not registered, and the hosts after it are "
                f"left alone. {_why_it_stays(host, judge)}"
            )
            server.not_proved(host)
            code = 1
            break
        proofs[host.name] = proof
    if proofs and not only:
        registered = _registered(fleet, server, proofs)
        code = code or registered  # a host that is neither old nor new outweighs the map
    others_broken = any(not host.managed and host.name not in proofs for host in hosts)
    return code or int(others_broken and not only)


def _proof_of_others(fleet: Fleet, server: ControlServer, host: Host, why: str) -> dict[str, Proof]:
    """Prove a relay that somebody else runs. Returns its proof by its name, if it holds.

    When it does not, the hosts after it are deployed all the same: nothing of ours has broken it.
    """
    fleet.left_to_others(host, "it is proved, and registered")
    proof = prove_hosts(fleet, [host], served=server.unasked(why))[host.name]
    if proof.ok:
        return {host.name: proof}
    fleet.report.say(f"{host.name} is NOT proved, so it is not registered: who runs it has to fix it first.")
    server.not_proved(host)
    return {}


def _why_it_stays(host: Host, judge: Confirmation) -> str:
    """Return why the host did not go back, in words."""
    if judge.verdict is Conclusion.STILL_BROKEN:
        return f"It was broken before, and nothing more is broken: it is kept. Broken: {judge.why}."
    if judge.proof is None:
        return "A deploy that changes nothing is not taken back."
    if judge.leaves:
        return f"It is left as it is; invoke rollback --host {host.name} takes it back."
    return "It has no earlier confirmed state to go back to."


def _converge(fleet: Fleet, host: Host, job: Job, judge: Confirmation) -> int:
    """Converge one host, keep its pin, and show each resource that failed.

    Returns the exit code. Raises Interrupted, LeftWithdrawn.
    """
    try:
        outcome = run_confirmed(fleet, host, job, judge)
        if judge.proof is None:
            judge.learn_pin(outcome)
    except (Interrupted, LeftWithdrawn):
        raise
    except DerpfleetError as error:
        fleet.report.failure(error)
        return error.exit_code
    show_failures(fleet, job, outcome, outcome.failures)
    if outcome.is_going_back:
        return after_going_back(fleet, host, job, outcome, judge)
    return 0 if outcome.ok else 1


def _registered(fleet: Fleet, server: ControlServer, proofs: dict[str, Proof]) -> int:
    """Register the proved relays. Returns the exit code.

    When that fails, it is said which relays work already, and what registers them.
    """
    try:
        return 0 if register(fleet, server, proofs) else 1
    except DerpfleetError as error:
        fleet.report.failure(error)
        again = " ".join(f"--host {name}" for name in proofs)
        fleet.report.say(
            f"{', '.join(proofs)}: deployed and PROVED, but NOT registered, so clients do not use it yet. "
            f"After the step above, run: invoke deploy {again}"
        )
        return error.exit_code
