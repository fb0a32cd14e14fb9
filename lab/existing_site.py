"""Sites that are on a host before a deploy: Debian's nginx, a page for each name, https on 443."""

from __future__ import annotations

from dataclasses import dataclass

from lab.certificates import make_server_certificate
from lab.debian import INSTALL
from lab.lab import Lab
from lab.process import wait_for

# As people write them: http redirects to https and has a folder for another ACME client; all share
# the two ports.
SERVER = """\
# {domain}, maintained by hand
server {{
    listen 80{default};
    listen [::]:80{default};
    server_name {domain};
    location /.well-known/acme-challenge/ {{ root /var/www/{domain}; }}
    location / {{ return 301 https://$host$request_uri; }}
}}
server {{
    listen 443 ssl{http2}{default};
    listen [::]:443 ssl{http2}{default};
    server_name {domain};
    ssl_certificate /etc/ssl/{domain}/fullchain.pem;
    ssl_certificate_key /etc/ssl/{domain}/privkey.pem;
    root /var/www/{domain};
}}
"""


@dataclass(frozen=True)
class ExistingSite:
    """A site that answers `text` at https://domain/. `ca` (PEM) verifies its certificate."""

    domain: str
    text: str
    ca: str


def install(lab: Lab, host: str, domain: str, *, default: bool = False, http2: bool = False) -> ExistingSite:
    """Put a site for `domain` on a host and its name into the DNS.

    `default`: it answers for names that no other site has. Installs Debian's nginx if it is not
    there. Raises LabError.
    """
    there, text = lab.hosts[host], f"The site of {domain}, which was here first.\n"
    if there.run(["sh", "-c", "command -v nginx"], check=False).returncode != 0:
        there.run(["apt-get", "update", "-q"], timeout_s=120)
        there.run([*INSTALL, "nginx"], timeout_s=300)
    authority, certificate, key = make_server_certificate(domain, lab.topology.ipv4(host))
    there.write(
        {f"var/www/{domain}/index.html": text, f"etc/ssl/{domain}/fullchain.pem": certificate.decode()}
    )
    there.write({f"etc/ssl/{domain}/privkey.pem": key.decode()}, mode=0o600)
    server = SERVER.format(
        domain=domain, default=" default_server" if default else "", http2=" http2" if http2 else ""
    )
    there.write({f"etc/nginx/sites-available/{domain}": server})
    there.run(["ln", "-sf", f"../sites-available/{domain}", f"/etc/nginx/sites-enabled/{domain}"])
    if default:  # there can be only one default server
        there.run(["rm", "-f", "/etc/nginx/sites-enabled/default"])
    there.run(["nginx", "-t"])
    there.run(["systemctl", "restart", "nginx"])
    fetch = ["curl", "--silent", "--insecure", "--resolve", f"{domain}:443:127.0.0.1", f"https://{domain}/"]
    wait_for(
        lambda: there.run(fetch, check=False).stdout == text,
        timeout_s=10,
        what=f"the site of {domain} does not answer",
    )
    lab.dns.point(domain, lab.topology.ipv4(host))
    return ExistingSite(domain, text, authority.decode())
