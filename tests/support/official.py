"""A map with regions of Tailscale, as its control server gives it."""

from __future__ import annotations

from typing import Any


def region(id: int, code: str, *names: str, ipv4: str = "203.0.113.9", stun: int = 0) -> dict[str, Any]:
    """Return a region with a node of each name."""
    nodes = [
        {"Name": f"{id}{letter}", "RegionID": id, "HostName": name, "IPv4": ipv4, "STUNPort": stun}
        for letter, name in zip("abc", names, strict=False)
    ]
    return {"RegionID": id, "RegionCode": code, "RegionName": code.title(), "Nodes": nodes}


NYC = region(1, "nyc", "derp1.tailscale.com", "derp1f.tailscale.com")
FRA = region(4, "fra", "derp4.tailscale.com")
TOK = region(7, "tok", "derp7.tailscale.com")
TAILSCALES: dict[str, Any] = {"Regions": {"1": NYC, "4": FRA, "7": TOK}}


def pinned(*taken: int, map: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the content of the file with the choice."""
    head = {"from": "https://x.example/map", "at": "2026-11-29T00:00:00Z", "taken": taken}
    return head | {"map": map or TAILSCALES}
