"""Zones at Tencent Cloud (DNSPod): the secret is the SecretKey of a SecretId."""

from __future__ import annotations

from functools import partial

from inventory.acme import DnsZone
from inventory.secrets import Secret
from roles.certificate.providers.contract import PLACE, no_environment, options, settings

PLUGIN = "dns-tencent"
WAITS = True
arguments, environment = partial(options, PLUGIN), no_environment


def credentials(dns: DnsZone, secret: Secret) -> Secret:
    """Return the text of the file with the credentials."""
    return secret.within(settings(PLUGIN, secret_id=dns.access_key, secret_key=PLACE))
