"""The controller fetches the packages that the host lacks, and sends them over the SSH connection.

They are those that the host's own package lists name, with the sums of those lists. The host takes
them from a folder whose index has no signature: SSH vouches for it, and the package manager
compares each package with its sum once more. RPMs have signatures of their own, which dnf checks if
it checks those of all the host's own sources.
"""

from __future__ import annotations

from collections.abc import Sequence

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.package_source import PackageSource
from engine.render import render
from inventory.model import Host
from roles import distributions
from roles.contract import nothing
from roles.readers.yum_repos import signing

_REPOSITORIES = "/etc/yum.repos.d/"
_FAMILIES = {row.family.system: row.family for row in distributions.DISTRIBUTIONS.values()}

ASK = Ask(
    files=(f"{_REPOSITORIES}*.repo",),
    commands={f"{system} packages": family.carriage.installed for system, family in _FAMILIES.items()},
)
refusals = nothing  # inventory.rules has them


def installed(facts: Facts) -> dict[str, str]:
    """Return the versions of the installed packages, by name."""
    said = facts.commands.get(f"{distributions.of(facts).family.system} packages")
    rows = [line.split() for line in (said.stdout if said else "").splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "installed"}


def to_bring(facts: Facts, names: Sequence[str]) -> list[str]:
    """Return the packages that are not installed."""
    there = installed(facts)
    return [name for name in names if name not in there]


def source(host: Host, facts: Facts, ship: Shipment) -> PackageSource | None:
    """Return the folder that the controller sends; None when nothing is lacking."""
    if ship.packages is None:
        return None
    files = (file for path, file in facts.files.items() if path.startswith(_REPOSITORIES))
    template = distributions.of(facts).family.carriage.template
    text = render(template, signing=signing(file.content or "" for file in files))
    return PackageSource(
        origin="the controller (packages.from)", sources=text.decode(), archive=ship.packages.path
    )
