"""Zones that take dynamic updates (RFC 2136), such as BIND's: the secret is a TSIG key."""

from __future__ import annotations

from functools import partial

from inventory.acme import DnsZone
from inventory.secrets import Secret
from roles.certificate.providers.contract import PLACE, no_environment, options, settings

PLUGIN = "dns-rfc2136"
WAITS = True
_KEY = (r"[A-Za-z0-9+/]+={0,2}", "a TSIG key in base64, as tsig-keygen prints it after `secret`")
arguments, environment = partial(options, PLUGIN), no_environment


def credentials(dns: DnsZone, secret: Secret) -> Secret:
    """Return the text of the file with the credentials."""
    return secret.of_form(*_KEY).within(
        settings(
            PLUGIN,
            server=dns.server,
            port=dns.port or 53,
            name=dns.key_name,
            algorithm=(dns.algorithm or "hmac-sha256").upper(),
            secret=PLACE,
        )
    )
