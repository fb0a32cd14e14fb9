"""The role that deploys each part which a proof may find broken."""

from __future__ import annotations

from inventory.choices import firewall_of, front_of
from inventory.model import Host
from probe.target import Part
from roles import paths

ROLES = {Part.FIREWALL: "firewall", Part.FRONT: "nginx", Part.CERTIFICATE: "certificate", Part.RELAY: "relay"}


def deploy_part(host: Host, part: Part) -> str:
    """Return the command that deploys one part of a host again."""
    if part is Part.FIREWALL and not firewall_of(host).closes:
        return f"set hosts.{host.name}.firewall.mode to auto, then invoke deploy --host {host.name}"
    front = front_of(host)
    if host.external and front.is_others and part in (Part.FRONT, Part.CERTIFICATE):
        return (
            f"put the fragment {paths.FRONT}/{host.external.kind}.conf of {host.name} into the configuration "
            f"of your front and reload it, then invoke verify --host {host.name}; invoke deploy "
            f"--host {host.name} writes the fragment anew"
        )
    if part is Part.FRONT and not front.hides_relay:
        part = Part.RELAY
    return f"invoke deploy --host {host.name} --only role:{ROLES[part]}"
