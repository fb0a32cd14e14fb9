"""The SHA-256 of self-signed certificates, which is the only way for clients to know them.

It is read from the file on the host, over SSH, because the certificate that a port shows could be
any server's. It is kept under .runs, and read again by each deploy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from control.derpmap import Pins
from engine.facts import Ask, Facts
from engine.run import NOTHING, Outcome
from fleet.shared import records
from fleet.shared.fleet import Fleet
from inventory.choices import source_of
from inventory.errors import DerpfleetError
from inventory.model import Host
from relay.keys.certificate import first_certificate
from roles import certificate


def needed(host: Host) -> bool:
    """Whether clients need the certificate's pin, and the site file does not give it."""
    return source_of(host).needs_pin and host.certificate.pin is None


def ask(host: Host) -> Ask:
    """Return the question whose answer `learn` needs; `NOTHING` when no pin is needed."""
    return Ask(files=(certificate.files(host)[0],)) if needed(host) else NOTHING


def ask_after(host: Host, outcome: Outcome) -> Ask:
    """Return the same question after a run; `NOTHING` when the run has left the certificate alone.

    The answer from before the run is still true then, and an answer costs a turn.
    """
    issued = certificate.issued(host)
    is_new = not set(issued.ready).isdisjoint(outcome.changed)
    return ask(host) if is_new or issued.fullchain not in outcome.facts.files else NOTHING


def learn(fleet: Fleet, host: Host, facts: Facts) -> str | None:
    """Return the pin from the answer to `ask`, and keep it. None without a certificate."""
    file = facts.files.get(certificate.files(host)[0])
    try:
        leaf = first_certificate((file.content or "") if file else "")
    except ValueError:
        return None
    pin = hashlib.sha256(leaf).hexdigest()
    records.keep(fleet.runs, _path(fleet, host), {"domain": host.domain, "pin": pin})
    return pin


def known(fleet: Fleet, hosts: Sequence[Host]) -> Pins:
    """Return the known pins: from the site file, from .runs, or else from the hosts themselves.

    A host that cannot be asked is reported and left out.
    """
    found = {host.name: pin for host in hosts if (pin := host.certificate.pin or _kept(fleet, host))}

    def read(host: Host) -> None:
        try:
            with fleet.session_for_reading(fleet.login(host), ask(host)) as session:
                pin = learn(fleet, host, session.facts)
        except DerpfleetError as error:
            words = f"the pin of its certificate is not known, and the host cannot be asked: {error}"
            fleet.report.line(host.name, "skipped", words)
            return
        if pin is not None:
            found[host.name] = pin

    fleet.parallel.each([host for host in hosts if needed(host) and host.name not in found], read)
    return found


def _path(fleet: Fleet, host: Host) -> Path:
    return fleet.runs / host.name / "pin.json"


def _kept(fleet: Fleet, host: Host) -> str | None:
    if not needed(host):
        return None
    try:
        kept = json.loads(_path(fleet, host).read_text())
    except (OSError, ValueError):
        return None
    return str(kept["pin"]) if kept.get("domain") == host.domain else None
