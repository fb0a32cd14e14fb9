"""One nftables table of ours: its rules, and the unit that loads them at boot. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from engine.render import render
from engine.resource import Absent, File, NftTable, Package, Resource, Service
from roles import paths
from roles.contract import after


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, by its name for nft.

    `path`: the file of its rules. `wants`: units that start with its own.
    """

    name: str
    title: str
    path: str
    unit: str
    wants: tuple[str, ...] = ()

    @property
    def unit_file(self) -> str:
        """Return the path of the unit."""
        return f"{paths.SYSTEMD}/{self.unit}"

    def resources(
        self, rules: bytes, *, revert_after_s: int, needs: tuple[str, ...] = ()
    ) -> list[Resource]:
        """Return the table and its unit. `revert_after_s`: as in `NftTable`."""
        package = Package(package="nftables")
        firewall = NftTable(
            table=self.name,
            path=self.path,
            rules=rules,
            revert_after_s=revert_after_s,
            needs=(package.id, *needs),
        )
        unit = File(path=self.unit_file, content=self._unit())
        return [package, firewall, unit, Service(unit=self.unit, needs=(firewall.id,))]

    def _unit(self) -> bytes:
        return render(
            "firewall.service.j2", title=self.title, table=self.name, rules=self.path, wants=self.wants
        )

    def absent(self, *, needs: tuple[str, ...] = ()) -> list[Resource]:
        """Return the unit without its files, and no table, even one that no unit has loaded.

        The package nftables stays.
        """
        stopped = Service(unit=self.unit, enabled=False, running=False)
        table = NftTable(table=self.name, path=self.path, present=False, needs=(stopped.id,))
        return after(needs, [stopped, Absent(path=self.unit_file), table])
