"""The controller fetches the packages that the host lacks, and sends them over the SSH connection.

They are those that the host's own package lists name, with the sums of those lists, which the
distribution signed. The host takes them from a folder without a signature: SSH vouches for it, and
apt compares each package with its sum once more.
"""

from __future__ import annotations

from collections.abc import Sequence

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.package_source import PackageSource
from inventory.choices import runner_of
from inventory.model import Host
from roles import distributions

_INSTALLED = "installed_packages"
_FORM = "${Package} ${Version} ${db:Status-Status}\\n"

BRINGS = True
ASK = Ask(commands={_INSTALLED: ("dpkg-query", "--show", "--showformat", _FORM)})


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return a sentence for each setting that does not go with it."""
    found, key = [], f"hosts.{host.name}.packages.from"
    if not distributions.of(facts).family.resolver:
        found.append(
            f"{host.name} runs {facts.os_id}, whose packages the controller cannot bring: set {key} to host, "
            "with packages.mirror if its own sources cannot be reached."
        )
    if host.packages.mirror:
        found.append(f"packages.mirror is for hosts that fetch packages: remove it, or set {key} to host.")
    if runner_of(host).in_container and host.docker.packages == "docker":
        found.append(
            "the controller brings packages of the distribution only: set "
            f"hosts.{host.name}.docker.packages to distribution, or {key} to host."
        )
    return found


def installed(facts: Facts) -> dict[str, str]:
    """Return the versions of the installed packages, by name."""
    said = facts.commands.get(_INSTALLED)
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
    return PackageSource(
        origin="the controller (packages.from)",
        sources="deb [trusted=yes] file:{folder}/packages ./\n",
        archive=ship.packages.path,
    )
