"""Zones at Amazon Route 53: the secret belongs to an access key that may change the zone."""

from __future__ import annotations

from collections.abc import Mapping

from inventory.acme import DnsZone
from inventory.secrets import Secret

PLUGIN = "dns-route53"
WAITS = False


def credentials(dns: DnsZone, secret: Secret) -> Secret:
    """Return the text of a credentials file, in the format of Amazon's SDKs."""
    return secret.within(
        f"[default]\naws_access_key_id = {dns.access_key}\naws_secret_access_key = {{}}"
    )


def arguments(path: str) -> tuple[str, ...]:
    """Return nothing: Amazon's SDK is told its file by a variable."""
    return ()


def environment(path: str) -> Mapping[str, str]:
    """Return the SDK's variable that names the file."""
    return {"AWS_SHARED_CREDENTIALS_FILE": path}
