"""Zones at Cloudflare: the secret is an API token that may edit the zone's DNS."""

from __future__ import annotations

from functools import partial

from inventory.acme import DnsZone
from inventory.secrets import Secret
from roles.certificate.providers.contract import PLACE, no_environment, options, settings

PLUGIN = "dns-cloudflare"
WAITS = True
arguments, environment = partial(options, PLUGIN), no_environment


def credentials(dns: DnsZone, secret: Secret) -> Secret:
    """Return the text of the file with the credentials."""
    return secret.within(settings(PLUGIN, api_token=PLACE))
