"""headscale's map as a file of the controller, such as in a repository. Somebody delivers it.

The regions of others and every comment in the file stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import unified_diff
from functools import partial
from typing import cast

from control import official
from control.contract import Look, Reach, Withdrawal
from control.derpmap import Pins, missing_pin, yaml_official, yaml_region
from control.headscale.clashes import Maps, lost, present, taken
from control.headscale.facts import HeadscaleRefused
from control.headscale.merge import merge
from control.headscale.reader import BadMap, parse_map
from control.regions import Regions, hosts_in, ids_of, renumbered
from control.sentences import has_former_id, with_certificates
from control.served import Unknown
from inventory.control_servers import MapFile
from inventory.model import Host, Site

NAME = MapFile.kind
_DELIVER = (
    "deliver it (commit, apply or copy it): headscale reads it again by itself where "
    "derp.auto_update_enabled is true, else when it is restarted"
)


@dataclass(frozen=True)
class MapFileServer:
    """headscale that is neither asked nor changed. Its map is in a file here."""

    site: Site
    reach: Reach

    def look(self) -> Look:
        """Return the hosts in the file. Raises HeadscaleRefused."""
        regions = self._regions(self._text())
        in_map = {host.name for host in hosts_in(regions, self._hosts)}
        return Look(program=f"the map file {self._path}", served=self.served(), in_map=in_map)

    def served(self) -> Unknown:
        """Return that the map is not known: the file may not have been delivered yet."""
        return Unknown(f"headscale is not asked: its map is delivered from {self._path}")

    def unasked(self, _: str) -> Unknown:
        """Return that the map is not known."""
        return self.served()

    def check(self, hosts: Sequence[Host]) -> int:
        """Show as a diff what a registration would change, and return the number of changes.

        All changes of the file count as one.
        """
        named = with_certificates(self.reach, NAME, hosts)
        before = self._text()
        after = self._changed(named, (), self.reach.pins(named), before)
        if before != after:
            self._show("would change", before, after)
        return len(hosts) - len(named) + int(before != after)

    def register(self, proved: Sequence[Host], *, all_proved: Sequence[Host]) -> None:
        """Merge the regions of proved relays into the file, and say what is left to do.

        Raises HeadscaleRefused.
        """
        pins = self.reach.pins(proved)
        if self._rewrite(partial(self._changed, proved, (), pins)):
            self.reach.report.say(f"{self._path} is changed; {_DELIVER}.")
        else:
            codes = ", ".join(f"{host.region.code} ({host.region.id})" for host in proved)
            self.reach.report.line(NAME, "ok", f"{self._path} has {codes}")
        for id, host in renumbered(self._regions(self._text()), self._hosts).items():
            self.reach.report.line(NAME, "", has_former_id(host, id))

    def not_proved(self, host: Host) -> None:
        """Show that the host's region stays in the file."""
        self.reach.report.say(
            f"If its region is in {self._path}, it stays there. "
            f"To take it out: invoke withdraw --host {host.name}"
        )

    @contextmanager
    def withdrawal(self, host: Host) -> Iterator[Withdrawal | None]:
        """Yield the relay's state in the file. Where nodes are at home is not known."""
        text = self._text()
        regions = self._regions(text)
        if not ids_of(regions, self._hosts, host):
            yield None
            return
        yield Withdrawal(
            others=[other for other in hosts_in(regions, self._hosts) if other.name != host.name],
            served=self.served(),
            nodes_at_home=lambda: None,
            refuse_removal=partial(self._changed, (), (host,), {}, text),
        )

    def take_out(self, host: Host) -> None:
        """Take every region of a stopped relay out of the file. Raises HeadscaleRefused."""
        if self._rewrite(partial(self._changed, (), (host,), {})):
            self.reach.report.say(f"{self._path} is changed; {_DELIVER}.")

    @property
    def _path(self) -> str:
        """Return the path of the file. `control.servers` makes this class for no other kind."""
        return cast("MapFile", self.site.control).path

    @property
    def _hosts(self) -> list[Host]:
        return [*self.site.hosts.values()]

    def _text(self) -> str:
        return self.reach.read_file(self._path)

    def _rewrite(self, change: Callable[[str], str]) -> bool:
        """Change the file, show the change, and return whether there was one."""
        before, after = self.reach.rewrite_file(self._path, change)
        if before != after:
            self._show("changed", before, after)
        return before != after

    def _changed(self, put: Sequence[Host], gone: Sequence[Host], pins: Pins, text: str) -> str:
        """Return the text of the file with the regions of `put`, and without those of `gone`.

        Raises HeadscaleRefused.
        """
        regions = self._regions(text)
        maps = Maps(self._path, regions)
        reasons = [
            *(reason for host in put for reason in (*taken(self.site, maps, host), missing_pin(host, pins))),
            *(reason for host in (*put, *gone) for reason in lost(maps, host)),
            *official.refusals(self.site, [*present(maps)]),
        ]
        if found := [*filter(None, reasons)]:
            raise _refused("\n".join(found))
        wanted = {host.region.id: yaml_region(host, pin=pins.get(host.name)) for host in put}
        ids = [id for host in gone for id in ids_of(regions, self._hosts, host)]
        ids += official.left_out(self.site, regions)
        try:
            return merge(text, put=wanted | yaml_official(self.site), remove=ids)
        except BadMap as error:
            raise _refused(str(error)) from None

    def _regions(self, text: str) -> Regions:
        try:
            return parse_map(text)
        except BadMap as error:
            why = "\n".join(error.complaints)
            raise _refused(f"headscale would not read {self._path} as it is meant:\n{why}") from None

    def _show(self, status: str, before: str, after: str) -> None:
        report, path = self.reach.report, self._path
        diff = "\n".join(unified_diff(before.splitlines(), after.splitlines(), path, path, lineterm=""))
        report.line(NAME, status, f"file:{path}")
        report.emit(event="map_file", path=path, diff=diff)
        report.diff(NAME, diff)


def _refused(why: str) -> HeadscaleRefused:
    return HeadscaleRefused("the map file was not changed", why=why, next="fix this, then deploy again")
