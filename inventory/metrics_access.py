"""The part of a site file that says who may ask a relay for its metrics. Frozen data, no I/O."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from inventory.part import Model


def _some_only(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if network.prefixlen == 0:
        words = "this is everybody: name the addresses of your Prometheus"
        raise PydanticCustomError("everybody", words)
    return network


class MetricsAccess(Model):
    """The access to /metrics at `ports.metrics` from elsewhere. /debug/ stays on loopback."""

    allow: tuple[Annotated[IPv4Network | IPv6Network, AfterValidator(_some_only)], ...] = Field(
        (),
        description="addresses or CIDRs that may scrape, such as 100.64.0.0/10; all others are refused "
        "by the relay, and by derpfleet's firewall table",
    )
