"""Paste it yourself: the site has no control server that derpfleet may change.

The null object of `control.contract`. It shows a person what to paste where.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from control.contract import Reach, Withdrawal
from control.derpmap import Pins, by_id, derpmap, warnings, yaml_map
from control.served import Unknown
from inventory.model import Host, Site

NEVER_ASKED = Unknown("the site has no headscale host")


@dataclass(frozen=True)
class PasteServer:
    """A control server that is never asked and never changed."""

    site: Site
    reach: Reach

    def look(self) -> None:
        """Return nothing: there is nobody to ask."""

    def served(self) -> Unknown:
        """Return that the map is not known."""
        return NEVER_ASKED

    def unasked(self, _: str) -> Unknown:
        """Return that the map is not known."""
        return NEVER_ASKED

    def check(self, _: Sequence[Host]) -> int:
        """Return 0: nothing is changed there."""
        return 0

    def register(self, _: Sequence[Host], *, all_proved: Sequence[Host]) -> None:
        """Show what to paste where: every relay that is proved, by this run or an earlier one."""
        site = self.site.model_copy(update={"hosts": {host.name: host for host in all_proved}})
        pins = self.reach.pins(all_proved)
        self.reach.report.emit(event="derpmap", derpmap=derpmap(site, pins=pins))
        self.reach.report.say(instructions(site, pins=pins))

    def not_proved(self, _: Host) -> None:
        """Show nothing: whether the host is in the map is not known."""

    @contextmanager
    def withdrawal(self, host: Host) -> Iterator[Withdrawal]:
        """Yield a relay that may be in the map.

        Without Tailscale's own relays, another relay of the site has to be proved.
        """
        others = [other for other in self.site.hosts.values() if other.name != host.name]
        yield Withdrawal(
            others=others if self.site.derpmap.omit_default_regions else None,
            served=NEVER_ASKED,
            nodes_at_home=lambda: None,
        )

    def take_out(self, host: Host) -> None:
        """Show which region to take out of the map."""
        region = f"region {host.region.id} ({host.region.code})"
        self.reach.report.say(f"Take {region} out of the map of your control server now.")


def instructions(site: Site, *, pins: Pins | None = None) -> str:
    """Return what to paste where, for a control server that derpfleet does not change."""
    policy = json.dumps({"derpMap": derpmap(site, pins=pins)}, indent=2, ensure_ascii=False)
    codes = ", ".join(host.region.code for _, host in by_id(site))
    first = min(site.hosts.values(), key=lambda host: host.region.id)
    return f"""\
{_opening(site)}

Tailscale's own control server
  Open https://login.tailscale.com/admin/acls/file. Paste the text between the outermost braces into
  the policy, beside the keys that are there. A policy has one "derpMap": if yours has one already,
  add these regions to its "Regions".

{_indented(policy)}

A headscale that derpfleet does not manage
  Save this as /etc/headscale/derp.yaml on its host. Keep the region ids as bare numbers and the keys
  in lower case: headscale silently skips keys that it does not know.

{_indented(yaml_map(site, pins=pins))}

  Name the file in config.yaml, then restart headscale (a reload does not read it again):

    derp:
      paths:
        - /etc/headscale/derp.yaml
{_without_default_regions(site)}
Then, on any node
    tailscale debug derp-map              lists {codes}
    tailscale debug derp {first.region.code:<17}connects to the relay
    tailscale netcheck                    measures every region
{_notes(warnings(site, pins=pins))}"""


def _opening(site: Site) -> str:
    if site.control.place:
        return (
            f"{site.control.place} gets these regions from `invoke deploy`.\n"
            "To add them to another control server, follow the instructions that fit."
        )
    return (
        "This site has no headscale host and no key for Tailscale's policy (section tailscale), so the last\n"
        "step is yours: follow the instructions that fit."
    )


def _without_default_regions(site: Site) -> str:
    return "      urls: []      # derpmap.omit_default_regions\n" if site.derpmap.omit_default_regions else ""


def _notes(sentences: Iterable[str]) -> str:
    lines = [f"  {sentence}" for sentence in sentences]
    return "\n".join(["", "Before you do", *lines, ""]) if lines else ""


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.rstrip("\n").split("\n"))
