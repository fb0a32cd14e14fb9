"""Where things lie on a relay host. Every path that two files have to agree on."""

from __future__ import annotations

ETC = "/etc/derpfleet"
OPT = "/opt/derpfleet"
# What the relay reads: its keys, its copies of the certificate. All of it is root's, and the relay writes nowhere at all: what it could
# write, whoever takes it over would let root follow at the next deploy.
STATE = "/var/lib/derpfleet-relay"
KEY = f"{STATE}/derper.key"  # derper's format and derper's file name, so that both flavours find it
MESH_KEYS = f"{STATE}/keys"
MESH_KEY = f"{MESH_KEYS}/derp-mesh.key"  # the name that derper looks for by itself
RELAY_CERTS = f"{STATE}/certs"
WEBROOT = "/var/www/derpfleet"  # ACME challenges

CERTIFICATE_PROGRAM = f"{OPT}/bin/certificate"
CERTIFICATE_CONFIG = f"{ETC}/certificate.json"
CERTBOT = f"{OPT}/certbot"
RELEASES = f"{OPT}/releases"
CURRENT = f"{OPT}/current"
FIREWALL_RULES = f"{ETC}/firewall.nft"

USER = "derpfleet-relay"
CONTAINER = "derpfleet-derper"
SERVICE = "derpfleet-relay.service"
SOCKET = "derpfleet-relay.socket"
SYSTEMD = "/etc/systemd/system"
