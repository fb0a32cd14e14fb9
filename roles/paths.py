"""Paths on a relay host that two files have to agree on."""

from __future__ import annotations

from engine.resource import UNITS

ETC = "/etc/derpfleet"
OPT = "/opt/derpfleet"
# Files that the relay reads: its keys, its copies of the certificate. All of them are root's, and
# the relay may write nowhere but in RUN, where root writes nothing. An attacker who took it over
# could plant links in a directory that it may write to, and root would follow them at the next
# deploy.
STATE = "/var/lib/derpfleet-relay"
# derper's format and derper's file name, so that both flavours find it
KEY = f"{STATE}/derper.key"
PROBER_KEYS = f"{STATE}/prober.keys"  # public
ALLOWED_KEYS = f"{STATE}/allowed.keys"  # of clients; public
MESH_KEYS = f"{STATE}/keys"
MESH_KEY = f"{MESH_KEYS}/derp-mesh.key"  # the name that derper looks for by itself
RELAY_CERTS = f"{STATE}/certs"

CERTIFICATE_PROGRAM = f"{OPT}/bin/certificate"
CERTIFICATE_LINEAGE = f"{OPT}/bin/lineage.py"  # a part of the program
CERTIFICATE_LEDGER = f"{OPT}/bin/ledger.py"  # another
CERTIFICATE_PAUSE = f"{OPT}/bin/pause.py"  # another
CERTIFICATE_CONFIG = f"{ETC}/certificate.json"
ACME_ACCOUNT = f"{ETC}/account"
DNS_CREDENTIALS = f"{ETC}/dns"
CERTBOT = f"{OPT}/certbot"
RELEASES = f"{OPT}/releases"
CURRENT = f"{OPT}/current"
FRONT = f"{ETC}/front"  # fragments for fronts that the operator keeps
FIREWALL_RULES = f"{ETC}/firewall.nft"
BACKEND_RULES = f"{ETC}/backend.nft"
AGENT = "/var/lib/derpfleet"  # the agent's journal and backups (files/agent/journal.py)
# There after `invoke withdraw` or `invoke drain`, until the relay is brought back; it says which.
WITHDRAWN = f"{AGENT}/withdrawn"

USER = "derpfleet-relay"
RUN = f"/run/{USER}"
METRICS = f"{RUN}/metrics.sock"
CONTAINER = "derpfleet-derper"
SERVICE = "derpfleet-relay.service"
SOCKET = "derpfleet-relay.socket"
SYSTEMD = UNITS
