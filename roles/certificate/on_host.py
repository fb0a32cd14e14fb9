"""A certificate that another program on the host writes and renews: acme.sh, Caddy, Traefik."""

from __future__ import annotations

from glob import escape

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.model import Host, Site
from roles.certificate import own, renewal
from roles.contract import Challenge, nothing

ASK_ABSENT = Ask()
orders = own.orders
replaced = absent = nothing  # the files are the other program's
_KEY = "certificate's key"


def files(host: Host) -> tuple[str, str]:
    """Return where the other program writes chain and key."""
    chain, key = host.certificate.fullchain_path, host.certificate.key_path
    assert chain and key  # noqa: S101 - inventory.certificate_rules refuses the source without them
    return chain, key


def ask(host: Host) -> Ask:
    """Return questions about both files. The key is not read."""
    chain, key = files(host)
    return Ask(files=(escape(chain),), commands={_KEY: ("test", "-s", key)})


def ready(host: Host) -> tuple[str, ...]:
    """Return nothing: no resource of ours puts it there."""
    return ()


def resources(
    host: Host, site: Site, facts: Facts, ship: Shipment, challenge: Challenge
) -> list[Resource]:
    """Return no renewal: `roles.certificate.watch` has the units that follow the other program."""
    return renewal.off()


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return a sentence for each file that is not there, or holds something else."""
    chain, key = files(host)
    fact, where = facts.files.get(chain), f"{chain} on {host.name} (certificate.fullchain_path)"
    next_step = "let the program that renews it write it there, or correct the path"
    said = []
    if fact is None:
        said.append(f"{where} is not there: {next_step}.")
    elif "BEGIN CERTIFICATE" not in (fact.content or ""):
        said.append(f"{where} has no PEM certificate: {next_step}.")
    if facts.commands[_KEY].status:
        said.append(f"{key} on {host.name} (certificate.key_path) is not there, or empty: {next_step}.")
    return said
