"""Zones at Alibaba Cloud: the secret belongs to an AccessKey that may change Alidns."""

from __future__ import annotations

from functools import partial

from inventory.acme import DnsZone
from inventory.secrets import Secret
from roles.certificate.providers.contract import PLACE, no_environment, options, settings

PLUGIN = "dns-aliyun-next"
WAITS = True
arguments, environment = partial(options, PLUGIN), no_environment


def credentials(dns: DnsZone, secret: Secret) -> Secret:
    """Return the text of the file with the credentials."""
    return secret.within(settings(PLUGIN, access_key_id=dns.access_key, access_key_secret=PLACE))
