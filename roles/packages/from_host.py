"""The host fetches its packages itself: from its own sources, or in place of them from a mirror.

The mirror is named to our own calls of the package manager only. The distribution's keys on the
host judge what it gives.
"""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.package_source import PackageSource
from engine.render import render
from inventory.model import Host
from roles import distributions
from roles.contract import nothing

ASK = Ask()
to_bring = nothing


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return a sentence when mirrors are named, and none of them is of the host's distribution."""
    if not host.packages.mirror or _base(host, facts):
        return []
    return [
        f"{host.name} runs {facts.os_id}, and packages.mirror names {', '.join(host.packages.mirror)}: add a "
        f"mirror of {facts.os_id}, or remove hosts.{host.name}.packages.mirror to use the host's own sources."
    ]


def source(host: Host, facts: Facts, ship: Shipment) -> PackageSource | None:
    """Return the mirror of the host's distribution, if there is one."""
    base, mirror = _base(host, facts), distributions.of(facts).mirror
    if not base or mirror is None:
        return None
    key = mirror.keys.get(distributions.release(facts)) or mirror.keys[""]
    text = render(mirror.template, base=base.rstrip("/"), codename=facts.os_codename, key=key)
    return PackageSource(origin=f"packages.mirror {base}", sources=text.decode())


def _base(host: Host, facts: Facts) -> str | None:
    """Return the mirror's URL. A derived distribution has packages of its own, and so no mirror."""
    named = {str(name): url for name, url in host.packages.mirror.items()}
    return named.get(facts.os_id)
