"""The certificate: its source, its program on the host, and its renewal. `MODULES` is the table."""

from __future__ import annotations

from collections.abc import Mapping

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts, asked
from engine.resource import Absent, Command, Directory, Resource
from inventory.choices import SourceName, source_of
from inventory.model import Host, Site
from roles import paths
from roles.certificate import (
    account,
    acme,
    brought,
    certbot,
    challenges,
    of_front,
    on_host,
    own,
    program,
    references,
    renewal,
    self_signed,
    watch,
)
from roles.certificate.contract import Source
from roles.contract import Issued, ServedBy, after

MODULES: Mapping[SourceName, Source] = {
    "letsencrypt": acme,
    "letsencrypt-staging": acme,
    "acme": acme,
    "manual": brought,
    "on-host": on_host,
    "self-signed": self_signed,
    "front": of_front,
}
COPIED = "command:relay's copy of the certificate"
"""The id of the command that copies the certificate to where the relay may read it."""


def chosen(host: Host) -> Source:
    """Return the module of the host's source."""
    return MODULES[host.source]


def issued(host: Host) -> Issued:
    """Return where the certificate is on the host, and the ids that have put it there."""
    return Issued(*files(host), chosen(host).ready(host))


def files(host: Host) -> tuple[str, str]:
    """Return where chain and key are on the host."""
    return chosen(host).files(host)


def resources(host: Host, site: Site, facts: Facts, ship: Shipment, served_by: ServedBy) -> list[Resource]:
    """Return the certificate, its program and its renewal.

    The relay gets its own copy of it when the relay serves it.
    """
    source, challenge = chosen(host), challenges.challenge(host, served_by.challenge)
    own = program.resources(host, files(host), facts, served_by, source.orders(host, challenge))
    found = [
        *challenges.resources(host, facts, ship),
        *account.resources(host, facts, ship),
        *(served_by.units if source_of(host).is_front else own),
        *source.resources(host, site, facts, ship, challenge),
        *watch.resources(host, facts, files(host)),
    ]
    if served_by.by_relay:
        copy = paths.CERTIFICATE_PROGRAM
        folder = Directory(path=paths.RELAY_CERTS, mode="0750", group=paths.USER)
        made = (f"file:{paths.CERTIFICATE_CONFIG}", f"file:{copy}", folder.id)
        argv, unless, needs = (copy, "copy"), (copy, "copied"), (*source.ready(host), *made)
        copied = Command(title=COPIED.removeprefix("command:"), argv=argv, unless=unless, needs=needs)
        found += [folder, copied]
    return found


def replaced_others(
    host: Host, facts: Facts, *, copied: bool, needs: tuple[str, ...]
) -> list[Resource]:
    """Return the removal of the other sources, after `needs`. What the chosen one shares stays.

    The files of a former name go as well, and so do the relay's copies unless it reads them
    (`copied`).
    """
    kept = {gone.id for gone in chosen(host).replaced()}
    gone = dict.fromkeys(gone for source in MODULES.values() for gone in source.replaced())
    copies = [] if copied else [Absent(path=paths.RELAY_CERTS)]
    others = [one for one in gone if one.id not in kept]
    return after(needs, [*copies, *own.of_former_names(host, facts), *others])


def absent(facts: Facts, *, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of every source's certificate, the renewal and the program, after `needs`.

    Certificates that other programs ordered stay, and so do the packages.
    """
    found = [*renewal.absent(), *program.absent(), *challenges.absent(), *account.absent(), *watch.absent()]
    found.append(Absent(path=paths.RELAY_CERTS))
    found += [gone for source in dict.fromkeys(MODULES.values()) for gone in source.absent(facts)]
    return after(needs, dict.fromkeys(found))  # two sources share a folder


def absence_refusals(host: Host, facts: Facts) -> list[str]:
    """Return a sentence for each file of another program that names a certificate that would go."""
    return references.refusals(host, facts, certbot.our_renewals(facts).keys())


def served(needs: str) -> Command:
    """Return the command that fails when the host does not serve the certificate on disk.

    It reloads once more before it fails.
    """
    return Command(
        title="served certificate",
        argv=(paths.CERTIFICATE_PROGRAM, "deploy"),
        unless=(paths.CERTIFICATE_PROGRAM, "served"),
        needs=(needs,),
    )


def ask(host: Host) -> Ask:
    """Return the questions of the chosen source, and about what those before it left."""
    return asked(chosen(host).ask(host), challenges.ASK, account.ASK, watch.ASK)


def ask_absent() -> Ask:
    """Return the questions of `absent` and `absence_refusals`."""
    return asked(references.ASK, *(source.ASK_ABSENT for source in MODULES.values()))
