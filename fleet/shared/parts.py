"""The commands for each part which a proof may find broken."""

from __future__ import annotations

import shlex

from inventory.choices import firewall_of, front_of, source_of
from inventory.model import Host
from probe.target import Part
from roles import paths, relay

ROLES = {Part.FIREWALL: "firewall", Part.FRONT: "nginx", Part.RELAY: "relay"}


def deploy_part(host: Host, part: Part) -> str:
    """Return the command that deploys one part of a host again, or restarts it."""
    if part is Part.PROCESS:
        command = shlex.join(relay.chosen_runner(host).RESTART)
        return f"on {host.name}: {command}, then invoke verify --host {host.name}"
    if part is Part.FIREWALL and not firewall_of(host).closes:
        return f"set hosts.{host.name}.firewall.mode to auto, then invoke deploy --host {host.name}"
    front = front_of(host)
    if host.external and front.is_others and part in (Part.FRONT, Part.CERTIFICATE):
        return (
            f"put the fragment {paths.FRONT}/{host.external.kind}.conf of {host.name} into the configuration "
            f"of your front and reload it, then invoke verify --host {host.name}; invoke deploy "
            f"--host {host.name} writes the fragment anew"
        )
    if part is Part.CERTIFICATE:
        return _another_certificate(host)
    if part is Part.FRONT and not front.hides_relay:
        part = Part.RELAY
    return f"invoke deploy --host {host.name} --only role:{ROLES[part]}"


def _another_certificate(host: Host) -> str:
    deploy, keys = f"invoke deploy --host {host.name}", f"hosts.{host.name}.certificate"
    if source_of(host).is_acme:
        return f"invoke renew --host {host.name} --force"
    if source_of(host).needs_files:
        return f"replace the files that {keys} names, then {deploy}"
    if host.certificate.pin:
        return f"set {keys}.pin to the sha256 of the host's certificate, then {deploy}"
    return deploy  # it makes a new one if need be, and learns its fingerprint
