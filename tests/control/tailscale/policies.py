"""Policies of a tailnet, and a site that registers with it."""

from __future__ import annotations

import json
from typing import Any

from control.derpmap import region
from inventory.control_servers import OauthClient, Tailscale
from inventory.model import Host, Site
from inventory.official import Official
from tests.control.test_headscale import site_of
from tests.support.official import pinned

POLICY = """\
// The policy of our tailnet. Ask Ann before you change it.
{
\t"ACLs": [
\t\t{"action": "accept", "src": ["*"], "dst": ["*:*"]}, // all
\t],
\t/* relays */
\t"DerpMap": {
\t\t"regions": {
\t\t\t"12": null, // too far
\t\t\t// Tokyo, of the other team
\t\t\t"950": {
\t\t\t\t"RegionID": 950, "RegionCode": "tok",
\t\t\t\t"Nodes": [{"Name": "950a", "HostName": "tok.example.net"}],
\t\t\t},
\t\t},
\t},
}
"""
BARE = '{\n\t"acls": [],\n}\n'


def site(*, omit: bool = False, oauth: bool = False, **settings: Any) -> Site:
    """Return a site with hk1 (900) and sg1 (901), whose key is in the environment."""
    kind: dict[str, Any] = (
        {"oauth": OauthClient(id="client1", secret="env:TS_SECRET")} if oauth else {"api_key": "env:TS_KEY"}
    )
    made = site_of()
    return made.model_copy(
        update={
            "headscale": None,
            "tailscale": Tailscale(**(kind | settings)),
            "derpmap": made.derpmap.model_copy(update={"omit_default_regions": omit}),
        }
    )


def taking(of: Site, *ids: int) -> Site:
    """Return the site with these official regions."""
    return of.model_copy(update={"official": Official.model_validate(pinned(*ids))})


def hosts(of: Site, *names: str) -> list[Host]:
    """Return hosts of the site."""
    return [of.hosts[name] for name in names]


def policy_with(*regions: dict[str, Any], omit: bool = False) -> str:
    """Return a policy with these regions."""
    named = {str(each["RegionID"]): each for each in regions}
    return json.dumps({"derpMap": {"OmitDefaultRegions": omit, "Regions": named}}, indent=2)


def of_host(of: Site, name: str, **changes: Any) -> dict[str, Any]:
    """Return the host's region as it is in a policy, changed."""
    return region(of.hosts[name]) | changes


def strangers(id: int, code: str, *names: str) -> dict[str, Any]:
    """Return a region of somebody else."""
    nodes = [{"Name": f"{id}{letter}", "HostName": name} for letter, name in zip("abc", names, strict=False)]
    return {"RegionID": id, "RegionCode": code, "RegionName": code, "Nodes": nodes}
