"""The providers of DNS zones for challenges. `MODULES` is the table."""

from __future__ import annotations

from collections.abc import Mapping

from inventory.acme import DnsZone
from inventory.choices import DnsProviderName
from roles.certificate.providers import aliyun, cloudflare, rfc2136, route53, tencent
from roles.certificate.providers.contract import Provider

MODULES: Mapping[DnsProviderName, Provider] = {
    "rfc2136": rfc2136,
    "cloudflare": cloudflare,
    "route53": route53,
    "aliyun": aliyun,
    "tencent": tencent,
}


def chosen(dns: DnsZone) -> Provider:
    """Return the module of the provider."""
    return MODULES[dns.provider]


def propagation(provider: Provider, seconds: int | None) -> tuple[str, ...]:
    """Return certbot's arguments for the wait until the zone's servers know the records."""
    if seconds is None or not provider.WAITS:
        return ()
    return (f"--{provider.PLUGIN}-propagation-seconds", str(seconds))
