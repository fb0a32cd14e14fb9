"""`invoke verify`: prove relays from outside, and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.report import Report, closing
from fleet.shared.fleet import Fleet
from fleet.shared.options import number, refuse
from fleet.shared.prove import prove_hosts, show
from inventory.files import why_unreadable
from probe.proof import Rung
from probe.target import BadAddress, Target
from probe.verify import prove


def verify_hosts(
    fleet: Fleet, names: Sequence[str], *, thorough: bool, ca: str, pin: str, stun_port: str
) -> int:
    """Prove hosts of the site. Returns the exit code.

    The last three options are refused: the site file says the same of its hosts.
    """
    outside = {"--ca": ca, "--pin": pin, "--stun-port": stun_port}
    refuse("goes with --address: for hosts of the site, the site file says it", outside)
    hosts = fleet.hosts(names)
    proofs = prove_hosts(fleet, hosts, thorough=thorough)
    failed = [name for name, proof in proofs.items() if not proof.ok]
    closing(fleet.report, failed, len(hosts))
    return 1 if failed else 0


def verify_address(
    report: Report, address: str, names: Sequence[str], *, thorough: bool, ca: str, pin: str, stun_port: str
) -> int:
    """Prove any DERP server. Returns the exit code.

    Raises BadAddress, also when `ca` cannot be read.
    """
    refuse("names a host of the site, --address any other server: give one of them", {"--host": names})
    stun = number(stun_port or "3478", "--stun-port", most=65535)
    roots = Path(ca) if ca else None
    target = Target.from_address(address, stun_port=stun or None, ca=roots, pin=pin or None)
    if target.ca and (why := why_unreadable(target.ca)):
        raise BadAddress(
            "the file of --ca cannot be read",
            why=why,
            next="give a PEM file; leave --ca out to trust the system's roots only",
        )

    def climbed(one: Target, rung: Rung) -> None:
        report.doing(one.name, f"proof: {rung.title}")

    [proof] = prove([target], thorough=thorough, on_rung=climbed)
    show(report, target.name, proof)
    return 0 if proof.ok else 1
