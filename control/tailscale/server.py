"""Tailscale's own control server. Its map is changed in the tailnet's policy, over its API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import unified_diff
from functools import cached_property, partial

from control.contract import Look, Reach, TooFewRelays, Withdrawal
from control.hujson import NotHujson
from control.regions import hosts_in, ids_of, renumbered
from control.sentences import has_former_id, region_stays, with_certificates
from control.served import Map, Served, Unknown, Unreadable
from control.tailscale.api import PolicyApi, PolicyRefused, Version
from control.tailscale.policy import (
    Policy,
    changes,
    not_ours,
    read_policy,
    refusals,
    too_few_left,
    with_official,
    with_regions,
    without_regions,
)
from inventory.control_servers import Tailscale
from inventory.errors import DerpfleetError
from inventory.model import Host, Site

NAME = "tailscale"
_TRIES = 2  # a second one when somebody else has changed the policy meanwhile

Change = Callable[[Policy], Policy]


class TooFewLive(PolicyRefused, TooFewRelays):
    """The policy would leave clients with too few relays."""


class BadPolicy(PolicyRefused):
    """The policy that is there cannot be read."""


@dataclass
class TailscaleServer:
    """Tailscale, whose policy is read, changed as text, validated, written and read back."""

    site: Site
    reach: Reach

    @cached_property
    def api(self) -> PolicyApi:
        """Return the way to the policy."""
        assert isinstance(self.site.control, Tailscale)  # noqa: S101 - by the table of servers
        return PolicyApi(self.site.control, self.reach)

    @property
    def where(self) -> str:
        """Return the policy, in words."""
        return self.site.control.place

    @property
    def _hosts(self) -> list[Host]:
        return [*self.site.hosts.values()]

    def look(self) -> Look:
        """Return the policy's map and the hosts in it. Raises DerpfleetError."""
        policy = self._policy(self.api.read())
        in_map = {host.name for host in hosts_in(policy.regions, self._hosts)}
        return Look(program=self.where, served=self._map(policy), in_map=in_map)

    def served(self) -> Served:
        """Return the policy's map, or why it is not known. Never raises."""
        try:
            return self._map(self._policy(self.api.read()))
        except BadPolicy as error:
            return Unreadable(
                f"{error.what}: {error.why}", cause="the policy cannot be read", next=error.next
            )
        except DerpfleetError as error:
            return Unknown(f"{error.what}{f' ({error.why})' if error.why else ''}")

    def unasked(self, why: str) -> Unknown:
        """Return `why`."""
        return Unknown(why)

    def check(self, hosts: Sequence[Host]) -> int:
        """Show the changes that `register` would make as a diff, and return their number."""
        named = with_certificates(self.reach, NAME, hosts)
        nameless = len(hosts) - len(named)
        if not named:
            return nameless
        before = self._policy(self.api.read())
        after = self._registered(named, self._hosts, before)
        found = self._show(before, after, "would change")
        if found:
            self.api.validate(after.text)
        return nameless + found

    def register(self, proved: Sequence[Host], *, all_proved: Sequence[Host]) -> Served:
        """Put the regions of proved relays into the policy, and return its map then.

        Raises DerpfleetError.
        """
        policy = self._change(partial(self._registered, proved, all_proved))
        codes = ", ".join(f"{host.region.code} ({host.region.id})" for host in proved)
        self.reach.report.line(NAME, "ok", f"{self.where} has {codes}")
        if policy.omits_default and not self.site.derpmap.omit_default_regions:
            words = f"{self.where} leaves Tailscale's own relays out, which the site file does not say"
            self.reach.report.warning(NAME, words)
        for id, host in renumbered(policy.regions, self._hosts).items():
            self.reach.report.line(NAME, "", has_former_id(host, id))
        return self._map(policy)

    def not_proved(self, host: Host) -> None:
        """Show that the host's region stays in the policy."""
        self.reach.report.say(region_stays(host))

    @contextmanager
    def withdrawal(self, host: Host) -> Iterator[Withdrawal | None]:
        """Yield the relay's state in the policy. Raises DerpfleetError."""
        policy = self._policy(self.api.read())
        if not ids_of(policy.regions, self._hosts, host):
            yield None
            return
        self._refuse([not_ours(policy, host, self.where)])
        others = [other for other in hosts_in(policy.regions, self._hosts) if other.name != host.name]
        yield Withdrawal(
            others=others if policy.omits_default else None,
            served=self._map(policy),
            nodes_at_home=lambda: None,
            refuse_removal=partial(self._withdrawn, host, policy),
        )

    def take_out(self, host: Host) -> None:
        """Take every region of a stopped relay out of the policy. Raises DerpfleetError."""
        self._change(partial(self._withdrawn, host))
        self.reach.report.line(NAME, "ok", f"{self.where} has no region of {host.name}")

    def _registered(self, proved: Sequence[Host], all_proved: Sequence[Host], policy: Policy) -> Policy:
        """Return the policy with these regions. Raises PolicyRefused."""
        pins = self.reach.pins(proved)
        self._refuse(refusals(policy, self.site, proved, pins, self.where))
        ours = with_regions(policy, proved, omit=self.site.derpmap.omit_default_regions, pins=pins)
        after = with_official(ours, self.site)
        proved_names = {host.name for host in (*proved, *all_proved)}
        dead = {host.region.id for host in self.site.hosts.values() if host.name not in proved_names}
        self._refuse([too_few_left(policy, after, dead, self.where)], TooFewLive)
        return after

    def _withdrawn(self, host: Host, policy: Policy) -> Policy:
        """Return the policy without this host's regions. Raises PolicyRefused."""
        after = without_regions(policy, ids_of(policy.regions, self._hosts, host))
        self._refuse([not_ours(policy, host, self.where), too_few_left(policy, after, (), self.where)])
        return after

    def _refuse(self, reasons: Iterable[str], kind: type[PolicyRefused] = PolicyRefused) -> None:
        if found := list(filter(None, reasons)):
            raise kind(
                f"{self.where} was not changed",
                why="\n".join(found),
                next="change this in the site file or in the console, then run this again; "
                "`invoke derpmap --push` registers all relays that are proved",
            )

    def _change(self, change: Change) -> Policy:
        """Change the policy, and return it as it is read back. Raises DerpfleetError."""
        for _ in range(_TRIES):
            version = self.api.read()
            before = self._policy(version)
            after = change(before)
            if after.text == before.text:
                return before
            self.api.validate(after.text)
            if self.api.write(after.text, version.etag):
                return self._read_back(before, after)
            self.reach.report.line(NAME, "", f"{self.where} was changed meanwhile: once more")
        raise PolicyRefused(
            f"{self.where} was not changed",
            why="somebody else changed it twice while our regions were written, so its ETag was another",
            next="wait until that work is done, then run this again",
        )

    def _read_back(self, before: Policy, after: Policy) -> Policy:
        self._show(before, after, "changed")  # also when it cannot be read back
        now = self._policy(self.api.read())
        touched = [id for id in {*before.regions, *after.regions} if _differ(before, after, id)]
        if lost := [str(id) for id in touched if _differ(after, now, id)]:
            raise PolicyRefused(
                f"{self.where} was written, but has something else for region {', '.join(lost)} now",
                why="somebody changed it directly afterwards",
                next="invoke check shows the difference; invoke derpmap --push writes it again",
            )
        return now

    def _policy(self, version: Version) -> Policy:
        try:
            return read_policy(version.text)
        except NotHujson as error:
            raise BadPolicy(
                f"{self.where} cannot be read as HuJSON with one derpMap",
                why=f"{error}; nothing was written",
                next="correct it in the console: https://login.tailscale.com/admin/acls/file",
            ) from None

    def _map(self, policy: Policy) -> Map:
        return Map(policy.document, title=f"the derpMap in {self.where}")

    def _show(self, before: Policy, after: Policy, status: str) -> int:
        """Show the changes of the policy, and return their number."""
        found = changes(before, after)
        old, new = (policy.text.splitlines(keepends=True) for policy in (before, after))
        diff = "".join(unified_diff(old, new, self.where, self.where))
        self.reach.report.emit(event="policy", host=NAME, status=status, changes=found, text=diff)
        if found:
            self.reach.report.diff(NAME, diff)
        for words in found:
            self.reach.report.line(NAME, status, words)
        return len(found)


def _differ(one: Policy, other: Policy, id: int) -> bool:
    return one.regions.get(id) != other.regions.get(id)
