"""`invoke verify`: the proof alone."""

from __future__ import annotations

from collections.abc import Sequence

from engine.report import Report, closing
from fleet.shared.fleet import Fleet
from fleet.shared.prove import prove_hosts, show
from inventory.files import why_unreadable
from inventory.model import Host
from probe.target import BadAddress, Target
from probe.verify import prove


def verify_hosts(fleet: Fleet, hosts: Sequence[Host], *, thorough: bool) -> int:
    """Proves hosts of the site. Returns the exit code."""
    proofs = prove_hosts(fleet, hosts, thorough=thorough)
    failed = [name for name, proof in proofs.items() if not proof.ok]
    closing(fleet.report, failed, len(hosts))
    return 1 if failed else 0


def verify_address(report: Report, target: Target, *, thorough: bool) -> int:
    """Proves any DERP server. Returns the exit code. Raises BadAddress when the roots that it is to trust cannot be read."""
    if target.ca and (why := why_unreadable(target.ca)):
        raise BadAddress("the file of --ca cannot be read", why=why, next="give a PEM file, or none where the system's roots will do")
    [proof] = prove([target], thorough=thorough, on_rung=lambda one, rung: report.doing(one.name, f"proof: {rung.title}"))
    show(report, target.name, proof)
    return 0 if proof.ok else 1
