"""The files with which people and verbs use the lab: site file, pinned host keys, and a way in."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

import yaml

from lab import netns
from lab.acme import Acme
from lab.headscale import LabHeadscale
from lab.host import LabHost
from lab.topology import EVERY_HOST, HOSTS, Topology

HEAD = """\
# The site of this lab, written by `invoke lab.up`. Run anything on it from inside the lab's network:
#   {enter} invoke deploy --host hk1
"""


def write(
    root: Path, topology: Topology, *, acme: Acme, headscale: LabHeadscale, hosts: Iterable[LabHost]
) -> None:
    """Write `site.yml`, `known_hosts` and `enter` into the lab's folder."""
    hosts = list(hosts)
    listed = {**HOSTS, **{host.name: host.spec for host in hosts}}
    (root / "known_hosts").write_text("".join(f"{host.known_hosts_line}\n" for host in hosts))
    site = {
        "known_hosts": "known_hosts",
        "defaults": {
            "ssh": {"user": "root", "key": "ssh/id_ed25519"},
            "certificate": {
                "source": "acme",
                "server": acme.directory_url,
                "ca": str(acme.ca.relative_to(root)),
                "contact": "admin@derp.lab",
                "agree_terms": True,
            },
        },
        "hosts": {name: _relay(topology, name) for name, spec in listed.items() if spec.kind == "relay"},
        "headscale": {
            "url": headscale.url,
            "ssh": {"address": headscale.host.spec.domain, "user": "root", "key": "ssh/id_ed25519"},
        },
        "derpmap": {"omit_default_regions": True},
    }
    text = HEAD.format(enter=root / "enter") + yaml.safe_dump(site, sort_keys=False, allow_unicode=True)
    (root / "site.yml").write_text(text)
    enter = root / "enter"
    enter.write_text(_enter_script(root, topology))
    enter.chmod(0o755)


def _relay(topology: Topology, name: str) -> dict[str, object]:
    spec, ipv6 = EVERY_HOST[name], topology.ipv6(name)
    assert spec.region is not None  # noqa: S101 - every relay host of the topology has one
    number, code, title = spec.region
    addresses = {"ipv4": str(topology.ipv4(name))} | ({"ipv6": str(ipv6)} if ipv6 else {})
    return {"domain": spec.domain, **addresses, "region": {"id": number, "code": code, "name": title}}


def _enter_script(root: Path, topology: Topology) -> str:
    into = shlex.join(netns.inside(topology.namespace, root / "etc" / "controller"))
    here = {"DERPFLEET_LAB": root, "DERPFLEET_SITE": root / "site.yml", "SSL_CERT_FILE": root / "ca.pem"}
    settings = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in here.items())
    return f"""#!/bin/sh
# Runs a command inside this lab's network. The lab's names resolve there, its certificates are
# trusted, and its site file is the default.
[ "$(id -u)" = 0 ] || exec sudo --preserve-env=PATH,TERM "$0" "$@"
[ -e {netns.FOLDER / topology.namespace} ] || {{ echo "the lab is not up: invoke lab.up" >&2; exit 1; }}
export {settings}
exec {into} "${{@:-${{SHELL:-/bin/sh}}}}"
"""
