"""Prove a site's relays, and keep the proofs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from artefacts.binary import version
from artefacts.image import content_of
from artefacts.programs import DERPER
from control.served import Served
from engine import cache
from engine.report import Report
from engine.session import Session
from fleet.shared import past, pins, records
from fleet.shared.ask_admission import Questions
from fleet.shared.control_server import control_server
from fleet.shared.count_arrivals import with_arrivals
from fleet.shared.fleet import Fleet
from fleet.shared.parts import deploy_part
from inventory.choices import program_of, runner_of
from inventory.model import Host
from inventory.secrets import read_secret
from probe.admission import HostsWords, admission_rung
from probe.derpmap import with_map
from probe.keys import Prover
from probe.net import Patience
from probe.proof import Proof, Rung, with_rung
from probe.render import DETAIL, ladder_lines, rung_lines
from probe.target import Target
from probe.verify import prove
from probe.web import authority

_MESH_KEY = ("[0-9a-f]{64}", "64 lower-case hex digits, as derper's -mesh-psk-file holds them")


def prover(fleet: Fleet, host: Host, derper: str = "") -> Prover:
    """Return the site's two prover keys, with a mesh key where the relay knows no other way.

    `derper`: the one whose mesh key the host has, when it is not the site file's.
    Raises SecretError, ProverKeyError and ImageError.
    """
    keys = fleet.prover
    if program_of(host).has_prober_keys:
        return keys
    return keys.at(host.name, derper or derper_of(host))


def _prover_of_others(fleet: Fleet, host: Host) -> Prover | None:
    """Return the prover's keys with the mesh key of a relay that somebody else runs.

    None when the site file names no such key. Raises SecretError and ProverKeyError.
    """
    if host.relay.mesh_key is None:
        return None
    key = read_secret(host.relay.mesh_key, base=fleet.base).of_form(*_MESH_KEY)
    return replace(fleet.prover, mesh_key=key)


def derper_of(host: Host) -> str:
    """Return which derper the site file gives the host: an image, or the sums of our own build.

    "" for a program that needs no mesh key. Raises ImageError.
    """
    if program_of(host).has_prober_keys:
        return ""
    if not runner_of(host).in_container:
        return version(DERPER)
    return host.docker.image or content_of(Path(str(host.docker.archive)))


def remember_derper(fleet: Fleet, host: Host, derper: str) -> None:
    """Remember which derper the host has after a run, for proofs while the site file names another.

    That is so after a way back. `derper`: "" for the site file's. Raises CacheError, ImageError.
    """
    site = derper_of(host)
    if not site or derper in ("", site):
        with cache.access_to(fleet.runs):
            _derper_path(fleet, host).unlink(missing_ok=True)
    else:
        records.keep(fleet.runs, _derper_path(fleet, host), {"site": site, "host": derper})


def _remembered(fleet: Fleet, host: Host) -> str:
    """Return the derper that the host has, "" when it is the site file's as far as is known."""
    try:
        found = json.loads(_derper_path(fleet, host).read_text())
        return str(found["host"]) if found["site"] == derper_of(host) else ""
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _derper_path(fleet: Fleet, host: Host) -> Path:
    return fleet.runs / host.name / "derper.json"


def _prover_at(fleet: Fleet, host: Host, derper: str) -> Prover | None:
    """Return the keys that the host has, as far as is known."""
    if not host.managed:
        return _prover_of_others(fleet, host)
    return prover(fleet, host, derper or _remembered(fleet, host))


def targets(fleet: Fleet, hosts: Sequence[Host], *, derper: str = "") -> list[Target]:
    """Return how these hosts have to answer from outside. `derper`: as for `prover`."""
    known = pins.known(fleet, hosts)
    return [
        Target.from_host(
            host,
            fleet.site,
            deploy=partial(deploy_part, host) if host.managed else None,
            pin=known.get(host.name),
            prover=_prover_at(fleet, host, derper),
        )
        for host in hosts
    ]


def prove_hosts(
    fleet: Fleet,
    hosts: Sequence[Host],
    *,
    served: Served | None = None,
    thorough: bool = False,
    derper: str = "",
    session: Session | None = None,
) -> dict[str, Proof]:
    """Prove all at once, show each ladder, and keep each proof under .runs.

    `served`: the map to compare with. Without it, the control server is asked at the same time.
    `derper`: as for `prover`. `session`: as for `climb`. Returns the proofs by the host's name.
    """
    wanted = targets(fleet, hosts, derper=derper)

    def climbed(one: Target, rung: Rung) -> None:
        fleet.report.doing(one.name, f"proof: {rung.title}")

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: served or control_server(fleet).served())
        climbs = climb(fleet, hosts, wanted, climbed, thorough=thorough, session=session)
        with ThreadPoolExecutor(max(1, len(hosts))) as counts:
            proofs = list(counts.map(partial(with_arrivals, fleet), hosts, wanted, climbs))
    pairs = zip(wanted, proofs, strict=True)
    found = {one.name: with_map(proof, one, asked.result()) for one, proof in pairs}
    for name, proof in found.items():
        show(fleet.report, name, proof)
        keep(fleet, name, proof)
    return found


def prove_quietly(
    fleet: Fleet,
    host: Host,
    *,
    derper: str = "",
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> Proof:
    """Return the proof of one relay as it is now. It is neither shown nor kept.

    `derper`: as for `prover`.
    """
    [proof] = prove(targets(fleet, [host], derper=derper), patience=patience)
    return proof


def with_words(
    fleet: Fleet, host: Host, proof: Proof, asked: HostsWords | None, *, derper: str = ""
) -> Proof:
    """Return the proof with the host's words about the admission, where they are known.

    `derper`: as for `prover`.
    """
    if asked is None or proof["handshake"].status != "ok":
        return proof
    [wanted] = targets(fleet, [host], derper=derper)
    return with_rung(proof, admission_rung(wanted, asked))


def any_proved(fleet: Fleet, hosts: Sequence[Host], served: Served) -> bool:
    """Whether one of these relays is proved. They are proved now, unless this run has proved one.

    `served`: the map to compare with.
    """
    if any(host.name in fleet.proved for host in hosts):
        return True
    return any(proof.ok for proof in prove_hosts(fleet, hosts, served=served).values())


def climb(
    fleet: Fleet,
    hosts: Sequence[Host],
    wanted: Sequence[Target],
    climbed: Callable[[Target, Rung], object] = lambda *_: None,
    *,
    thorough: bool = False,
    session: Session | None = None,
) -> list[Proof]:
    """Prove all targets from outside, and ask their hosts at the same time whom they can ask.

    `hosts`: those of the targets. `climbed` gets each rung as soon as it is known. `session`: one
    that is open to the only host.
    """
    questions = Questions(fleet, hosts, session)

    def on_rung(one: Target, rung: Rung) -> None:
        questions.climbed(one.name, rung)
        climbed(one, rung)

    try:
        proofs = prove(wanted, thorough=thorough, on_rung=on_rung)
        return [questions.added(*pair) for pair in zip(wanted, proofs, strict=True)]
    finally:
        questions.close()


def compare_map(fleet: Fleet, hosts: Sequence[Host], proofs: Mapping[str, Proof], served: Served) -> bool:
    """Add the rung of the served map to proofs, show that rung, and keep the proofs.

    Returns whether all of them hold.
    """
    whole = {one.name: with_map(proofs[one.name], one, served) for one in targets(fleet, hosts)}
    for name, proof in whole.items():
        fleet.report.emit(event="proof", host=name, **proof.to_json())
        for line in rung_lines(proof["map"]):
            fleet.report.rung(name, line, hang=DETAIL)
        keep(fleet, name, proof)
    return all(proof.ok for proof in whole.values())


def show(report: Report, name: str, proof: Proof) -> None:
    """Show the ladder to people, and emit the whole proof to machines."""
    report.doing(name, "")
    report.emit(event="proof", host=name, **proof.to_json())
    for line in ladder_lines(proof):
        report.rung(name, line, hang=DETAIL)


def proof_path(fleet: Fleet, name: str) -> Path:
    """Return the path of the last proof of a host."""
    return fleet.runs / name / "proof.json"


def keep(fleet: Fleet, name: str, proof: Proof) -> None:
    """Keep a proof for this run, for later verbs, and in the history."""
    (fleet.proved.add if proof.ok else fleet.proved.discard)(name)
    records.keep(fleet.runs, proof_path(fleet, name), proof.to_json())
    past.add(fleet, name, proof)


def forget(fleet: Fleet, host: Host) -> None:
    """Delete the last proof of a host, because it is no longer true."""
    fleet.proved.discard(host.name)
    with cache.access_to(fleet.runs):
        proof_path(fleet, host.name).unlink(missing_ok=True)


def was_proved(fleet: Fleet, host: Host) -> bool:
    """Whether the last kept proof of a host holds, and is of its address in `host`."""
    return proved_address(fleet, host.name) == authority(host.domain, host.ports.https, 443)


def proved_address(fleet: Fleet, name: str) -> str:
    """Return the address that the last kept proof of a host is of, "" where it does not hold."""
    try:
        proof = Proof.from_json(json.loads(proof_path(fleet, name).read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return proof.address if proof.ok else ""
