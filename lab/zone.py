"""The lab's names as a real DNS zone that takes dynamic updates (RFC 2136), for DNS challenges.

BIND serves it, on the headscale host. The lab's DNS asks it for `_acme-challenge.` names alone.
"""

from __future__ import annotations

import re

from lab.debian import INSTALL
from lab.lab import Lab
from lab.process import wait_for
from lab.topology import DOMAIN, ZONE_HOST, ZONE_PORT

KEY_NAME = "derpfleet"
UNIT = "lab-zone"
FOLDER = "/var/cache/bind"
ZONE = f"""\
$TTL 60
@ SOA ns.{DOMAIN}. admin.{DOMAIN}. 1 60 60 600 60
@ NS ns
ns A {{address}}
"""
CONFIG = f"""\
include "{FOLDER}/key.conf";
options {{{{
    directory "{FOLDER}"; pid-file none; session-keyfile none; listen-on-v6 {{{{ none; }}}};
    listen-on port {ZONE_PORT} {{{{ {{address}}; }}}}; recursion no; dnssec-validation no;
}}}};
controls {{{{ }}}};
zone "{DOMAIN}" {{{{
    type primary; file "{FOLDER}/{DOMAIN}.zone";
    update-policy {{{{
        grant {KEY_NAME} wildcard *.{DOMAIN}. TXT;
    }}}};
}}}};
"""


def start(lab: Lab) -> str:
    """Serve the zone, and return the secret of the TSIG key that may change it.

    Raises LabError.
    """
    host, address = lab.hosts[ZONE_HOST], lab.topology.ipv4(ZONE_HOST)
    host.run(["apt-get", "update", "-q"], timeout_s=120)
    host.run([*INSTALL, "bind9"], timeout_s=300)
    key = host.run(["tsig-keygen", "-a", "hmac-sha256", KEY_NAME]).stdout
    for name, text in (("key.conf", key), (f"{DOMAIN}.zone", ZONE), ("lab.conf", CONFIG)):
        content = text if text == key else text.format(address=address)
        host.run(["sh", "-c", f"cat >{FOLDER}/{name}"], input=content)
    host.run(["systemd-run", "--quiet", f"--unit={UNIT}", "named", "-f", "-c", f"{FOLDER}/lab.conf"])
    asked = ["ss", "--numeric", "--listening", "--udp", "src", f"{address}:{ZONE_PORT}"]
    wait_for(
        lambda: str(address) in host.run(asked).stdout,
        timeout_s=20,
        what="the lab's zone did not come up",
        why=lambda: host.run(["journalctl", "-u", UNIT, "-n", "5", "-o", "cat", "--no-pager"]).stdout,
    )
    found = re.search(r'secret "([^"]+)"', key)
    assert found is not None  # noqa: S101 - tsig-keygen wrote it
    return found[1]
