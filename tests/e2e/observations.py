"""Observations of the hosts of the lab, of its control server, and of what a verb said."""

from __future__ import annotations

import json
import re

import yaml

import lab


def state(stage: lab.Lab, host: str) -> str:
    """Return everything on the host that a deploy might change: files with times, units, firewall,
    sockets."""
    # Without the times of directories, which an overlay does not keep.
    printed = "\\( -type d -printf '%p\\n' -o -printf '%p %C@ %s\\n' \\)"
    files = f"find /etc /opt /usr /root /var/lib/dpkg /var/lib/derpfleet -xdev {printed} 2>/dev/null | sort"
    script = f"{files}; systemctl list-unit-files --no-legend; nft list ruleset 2>/dev/null; ss -Hltun"
    return stage.run_in(host, ["sh", "-c", script]).stdout


def installed(stage: lab.Lab, host: str) -> set[str]:
    """Return those of nginx, nginx-common and nftables that are installed whole on a host."""
    asked = [
        "dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", "nginx", "nginx-common",
        "nftables",
    ]
    lines = stage.run_in(host, asked, check=False).stdout.splitlines()
    return {line.split()[0] for line in lines if line.endswith(" installed")}


def journal(stage: lab.Lab, host: str) -> dict[str, list[str]]:
    """Return the results of the last run on a host from its agent's journal: ids by status."""
    script = "cat $(ls -t /var/lib/derpfleet/journal/*.jsonl | head -1)"
    lines = [json.loads(line) for line in stage.run_in(host, ["sh", "-c", script]).stdout.splitlines()]
    return {
        status: [line["id"] for line in lines if line.get("status") == status]
        for status in ("ok", "changed", "skipped", "failed")
    }


def words(text: str) -> str:
    """Return the text without line breaks, to search it; its commands without --site FILE."""
    return re.sub(r" --site \S+", "", " ".join(text.split()))


def regions(stage: lab.Lab) -> set[str]:
    """Return the ids of the regions that headscale serves now."""
    return set(stage.headscale.regions())


def leaf(stage: lab.Lab, host: str) -> str:
    """Return the fingerprint of the certificate that is served."""
    place = f"{stage.topology.ipv4(host)}:443"
    script = (
        f"openssl s_client -connect {place} -servername {host}.derp.lab </dev/null 2>/dev/null "
        "| openssl x509 -noout -fingerprint -sha256"
    )
    found = stage.run_in("controller", ["sh", "-c", script]).stdout
    assert "Fingerprint=" in found
    return found


def the_map(stage: lab.Lab) -> str:
    """Return the map file of the headscale host."""
    return stage.run_in("hs1", ["cat", "/etc/headscale/derp.yaml"]).stdout


def name_in(text: str) -> str:
    """Return the name of region 901 in that map."""
    return str(yaml.safe_load(text)["regions"][901]["regionname"])


def page(stage: lab.Lab, domain: str) -> tuple[int, str]:
    """Return status and text of a site on sg1."""
    fetch = [
        "curl", "--silent", "--insecure", "--max-time", "5", "--write-out", "\n%{http_code}", "--resolve",
    ]
    found = stage.run_in(
        "controller",
        [*fetch, f"{domain}:443:{stage.topology.ipv4('sg1')}", f"https://{domain}/"],
        check=False,
    ).stdout
    text, _, status = found.rpartition("\n")
    return int(status), text


def without_times(listing: str) -> str:
    return re.sub(r"[A-Z][a-z]{2} +\d+ \d\d:\d\d", "", listing)
