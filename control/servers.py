"""The table of control servers: a row for each `kind` in `inventory.model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from control.contract import ControlServer, Reach
from control.headscale.map_file import MapFileServer
from control.headscale.server import HeadscaleServer
from control.paste import PasteServer
from control.tailscale.server import TailscaleServer
from inventory.choices import ControlName
from inventory.model import Site

SERVERS: Mapping[ControlName, Callable[[Site, Reach], ControlServer]] = {
    "headscale": HeadscaleServer,
    "map-file": MapFileServer,
    "tailscale": TailscaleServer,
    "paste": PasteServer,
}


def chosen(site: Site, reach: Reach) -> ControlServer:
    """Return the site's control server."""
    return SERVERS[site.control.kind](site, reach)
