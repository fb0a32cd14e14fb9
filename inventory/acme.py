"""The parts of a site file that an ACME server's orders need: a DNS zone, an account. No I/O."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from pydantic import Field

from inventory.choices import DnsProviderName
from inventory.part import Model
from inventory.secrets import SecretRef
from inventory.values import Port, TsigAlgorithm, Word


class DnsZone(Model):
    """Access to the names' DNS zone, for certificate.challenge: dns."""

    provider: DnsProviderName
    secret: SecretRef = Field(
        description="the TSIG key, the API token or the secret key; it is kept on the host, mode 0600"
    )
    access_key: Word | None = Field(
        None, description="the id of the secret key, with route53, aliyun and tencent"
    )
    server: IPv4Address | IPv6Address | None = Field(
        None, description="the address of the zone's primary server, with rfc2136"
    )
    port: Port | None = Field(None, description="of that server; default: 53")
    key_name: Word | None = Field(None, description="the TSIG key's name, with rfc2136")
    algorithm: TsigAlgorithm | None = Field(None, description="the TSIG key's; default: hmac-sha256")
    propagation_s: Annotated[int, Field(ge=0, le=3600)] | None = Field(
        None, description="wait so long for the zone's servers; default: the plugin's own time"
    )


class Account(Model):
    """An account that the operator has at the ACME server already (EAB, RFC 8555, 7.3.4)."""

    key_id: Word
    hmac: SecretRef = Field(description="its HMAC key in base64url; it is kept on the host, mode 0600")
