"""The SHA-256 of self-signed certificates, by which alone clients know them.

Learnt from the file on the host, over SSH: what a port shows could be anybody's. Kept under .runs, and learnt again by each deploy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from control.derpmap import Pins
from engine.facts import Ask, Facts
from fleet.shared import records
from fleet.shared.fleet import Fleet
from inventory.choices import source_of
from inventory.errors import DerpfleetError
from inventory.model import Host
from relay.keys.certificate import first_certificate
from roles import certificate


def needed(host: Host) -> bool:
    """Whether clients have to be told which certificate it is, and the site file does not say so."""
    return source_of(host).needs_pin and host.certificate.pin is None


def ask(host: Host) -> Ask:
    """What to ask the host, for `learn`."""
    return Ask(files=(certificate.files(host)[0],))


def learn(fleet: Fleet, host: Host, facts: Facts) -> str | None:
    """The pin out of the answer to `ask`, which is also kept; None when the host has no certificate yet."""
    file = facts.files.get(certificate.files(host)[0])
    try:
        leaf = first_certificate((file.content or "") if file else "")
    except ValueError:
        return None
    pin = hashlib.sha256(leaf).hexdigest()
    records.keep(fleet.runs, _path(fleet, host), {"domain": host.domain, "pin": pin})
    return pin


def known(fleet: Fleet, hosts: Sequence[Host]) -> Pins:
    """The pins of those hosts that have one: from the site file, from .runs, or else from the hosts themselves.

    A host that cannot be asked is told, and left out.
    """
    found = {host.name: pin for host in hosts if (pin := host.certificate.pin or _kept(fleet, host))}

    def read(host: Host) -> None:
        try:
            with fleet.session_for_reading(fleet.login(host), ask(host)) as session:
                pin = learn(fleet, host, session.facts)
        except DerpfleetError as error:
            fleet.report.line(host.name, "skipped", f"the pin of its self-signed certificate is not known, and it cannot be asked: {error}")
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
