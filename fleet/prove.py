"""The proof of a site's relays, and what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from engine.report import Report
from fleet.context import Fleet
from inventory.model import Host
from probe.keys import Prover, read_prover
from probe.proof import Proof, Rung
from probe.render import ladder_lines
from probe.target import Target
from probe.verify import prove


def prover(fleet: Fleet, host: Host) -> Prover:
    """The site's two prover keys, made on first use, and the mesh key that they have at this host's relay."""
    return read_prover(fleet.runs / "prover.json").at(host.name)


def target(fleet: Fleet, host: Host) -> Target:
    """What the outside has to see of a host."""
    return Target.from_host(host, fleet.site, prover=prover(fleet, host))


def prove_hosts(fleet: Fleet, hosts: Sequence[Host], *, thorough: bool = False) -> dict[str, Proof]:
    """Proves all at once, shows each ladder, keeps each proof under .runs. Returns them by the host's name."""
    targets = [target(fleet, host) for host in hosts]

    def climbed(one: Target, rung: Rung) -> None:
        fleet.report.doing(one.name, f"proof: {rung.title}")

    proofs = dict(zip((one.name for one in targets), prove(targets, thorough=thorough, on_rung=climbed), strict=True))
    for name, proof in proofs.items():
        show(fleet.report, name, proof)
        keep(fleet, name, proof)
    return proofs


def show(report: Report, name: str, proof: Proof) -> None:
    """The ladder for people, the whole proof for machines."""
    report.doing(name, "")
    report.emit(event="proof", host=name, **proof.to_json())
    for line in ladder_lines(proof):
        report.line(name, "", line)


def proof_path(fleet: Fleet, name: str) -> Path:
    """Where the last proof of a host lies."""
    return fleet.runs / name.replace("/", "_") / "proof.json"


def keep(fleet: Fleet, name: str, proof: Proof) -> None:
    """Remembers a proof for `invoke status`."""
    path = proof_path(fleet, name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temp = path.with_suffix(".new")
    temp.write_text(json.dumps(proof.to_json(), indent=1) + "\n")
    temp.replace(path)
