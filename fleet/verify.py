"""`invoke verify`: the proof alone."""

from __future__ import annotations

from collections.abc import Sequence

from engine.report import Report, closing
from fleet.context import Fleet
from fleet.prove import prove_hosts, show
from inventory.model import Host
from probe.target import Target
from probe.verify import prove


def verify_hosts(fleet: Fleet, hosts: Sequence[Host], *, thorough: bool) -> int:
    """Proves hosts of the site. Returns the exit code."""
    proofs = prove_hosts(fleet, hosts, thorough=thorough)
    failed = [name for name, proof in proofs.items() if not proof.ok]
    closing(fleet.report, failed, len(hosts))
    return 1 if failed else 0


def verify_address(report: Report, target: Target, *, thorough: bool) -> int:
    """Proves any DERP server. Returns the exit code."""
    [proof] = prove([target], thorough=thorough, on_rung=lambda one, rung: report.doing(one.name, f"proof: {rung.title}"))
    show(report, target.name, proof)
    return 0 if proof.ok else 1
