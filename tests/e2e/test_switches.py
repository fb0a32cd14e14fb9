"""A host goes from every variant of a choice to every other, each by one edit and one deploy.

However a variant was reached, the host then has nothing that it does not have when that variant is
deployed to a host without a relay: nothing of the others is left, listens, runs or is enabled.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import yaml

import lab
from lab.certificates import make_server_certificate
from lab.topology import ACME
from tests.e2e.desk import Desk
from tests.e2e.steps import small, taken_off
from tests.support.walks import over_all_pairs

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]
HK1 = "hk1"
ONLY = [HK1, "hs1", ACME]
FOLDER = "/root/.acme.sh/hk1.derp.lab_ecc"
SMALL: dict[str, Any] = {"front": "direct", "certificate": {"source": "self-signed"}, "relay": {"open": True}}
BEHIND_HAPROXY = {"kind": "haproxy", "tls": "passthrough"}
NODE_KEY = "nodekey:" + "0123456789abcdef" * 4

# Paths that a deploy may leave: what packages and certbot keep, the notes of runs, and the releases
# of relay and certbot, which stay as long as a kept generation has one: a rollback needs them.
LOOKED_AT = ("/etc", "/opt", "/run/derpfleet-relay", "/usr/local", "/var/lib", "/var/log", "/var/www")
LEFT_OUT = (
    "/etc/letsencrypt", "/etc/docker", "/var/lib/apt", "/var/lib/containerd", "/var/lib/derpfleet",
    "/var/lib/docker", "/var/lib/dpkg", "/var/lib/letsencrypt", "/var/lib/nginx", "/var/lib/systemd",
    "/var/log/letsencrypt", "/opt/derpfleet/certbot", "/opt/derpfleet/images",
    "/opt/derpfleet/releases", "/opt/containerd",
)  # fmt: skip
RUNNING = "systemctl list-units --type=service,socket,timer,path --state=running,listening,waiting --plain"


@pytest.fixture(scope="module")
def desk(stage: lab.Lab) -> Desk:
    return Desk(stage)


@pytest.fixture(scope="module")
def certificates(stage: lab.Lab) -> dict[str, Any]:
    """Return the settings of each source; files of both kinds are there."""
    _, chain, key = make_server_certificate("hk1.derp.lab", stage.topology.ipv4(HK1))
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain.decode())).hexdigest()
    for name, content in (("privkey.pem", key), ("fullchain.pem", chain)):
        (stage.root / name).write_bytes(content)
        script = f"umask 077; mkdir -p {FOLDER}; cat >{FOLDER}/{name}"
        stage.run_in(HK1, ["sh", "-c", script], input=content.decode())
    on_host = {"fullchain_path": f"{FOLDER}/fullchain.pem", "key_path": f"{FOLDER}/privkey.pem"}
    return {
        "acme": {"front": "nginx", "certificate": None},  # as the lab's defaults say
        "manual": {
            "certificate": {
                "source": "manual", "fullchain": "fullchain.pem", "key": "file:privkey.pem", "pin": pin,
            }
        },
        "on-host": {"certificate": {"source": "on-host", "pin": pin} | on_host},
        "self-signed": {"certificate": {"source": "self-signed"}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def choices(
    stage: lab.Lab, certificates: dict[str, Any], derper_archive: str
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the variants of each choice, with the settings of the host for each."""
    archive = {"archive": derper_archive}
    verify = yaml.safe_load(stage.site_file.read_text())["headscale"]["url"] + "/verify"
    return {
        "front": {
            "nginx": {"front": "nginx"},
            "nginx-stream": {"front": "nginx-stream"},
            "direct": {"front": "direct"},
            "external": {"front": "external", "external": BEHIND_HAPROXY},
        },
        "program": {
            "python": {"relay": {"program": "python", "under": "systemd", "open": True}},
            "native": {"relay": {"program": "derper", "under": "systemd", "open": True}},
            "supervisord": {"relay": {"program": "derper", "under": "supervisord", "open": True}},
            "docker": {"relay": {"program": "derper", "under": "docker", "open": True}, "docker": archive},
        },
        "certificate": certificates,
        "admission": {
            "open": {"relay": {"admission": "open"}},
            "keys": {"relay": {"admission": "keys", "keys": [NODE_KEY]}},
            "url": {"relay": {"admission": "url", "verify_client_url": verify}},
        },
    }


def deployed(desk: Desk, settings: dict[str, Any]) -> None:
    """Deploy the small relay with these settings. Nobody has to keep the external front."""
    wanted = {key: value for key, value in (SMALL | settings).items() if value is not None}
    small(desk, HK1, wanted, acme=True)
    ran = desk.invoke("deploy", "--host", HK1, timeout_s=600)
    assert ran.of("done", HK1) and ran.counts(HK1)["failed"] == 0, (settings, ran.why())
    assert ran.code == (1 if "external" in settings else 0), (settings, ran.why())


def found(desk: Desk) -> set[str]:
    """Return paths, sockets that listen, units that run or are enabled, containers."""

    def lines(*argv: str) -> Iterator[str]:
        return iter(desk.stage.run_in(HK1, [*argv], check=False).stdout.splitlines())

    left_out = [word for folder in LEFT_OUT for word in ("-path", folder, "-prune", "-o")]
    sockets = (line.split() for line in lines("ss", "-Hltun"))
    units = lines("sh", "-c", f"{RUNNING} --no-legend; systemctl list-unit-files --state=enabled --no-legend")
    ours = ("derpfleet", "nginx", "supervisor", "certbot")
    return {
        *lines("find", *LOOKED_AT, "-xdev", *left_out, "-print"),
        *(f"{words[0]} {words[4]}" for words in sockets),
        *(" ".join(line.split()[:1]) for line in units if any(name in line for name in ours)),
        *lines("sh", "-c", "docker ps --all --format '{{.Names}}' 2>/dev/null || true"),
        *lines("sh", "-c", "nft list tables"),
        *lines("sh", "-c", "getent passwd derpfleet-relay; getent group derpfleet-relay"),
    }


@pytest.mark.parametrize("choice", ["front", "program", "certificate", "admission"])
def test_a_switch_between_any_two_variants_leaves_nothing_of_the_old_one(
    desk: Desk, choices: dict[str, dict[str, dict[str, Any]]], choice: str
) -> None:
    variants = choices[choice]
    walk = over_all_pairs(variants)
    assert len(set(pairwise(walk))) == len(walk) - 1 == len(variants) * (len(variants) - 1)
    after = list[tuple[str, str, set[str]]]()
    for before, name in pairwise(["", *walk]):
        deployed(desk, variants[name])
        after.append((before, name, found(desk)))
    fresh = dict[str, set[str]]()
    for name, settings in variants.items():
        assert taken_off(desk, HK1).returncode == 0
        deployed(desk, settings)
        fresh[name] = found(desk)
    left = {
        (before, name): sorted(there - fresh[name]) for before, name, there in after if there - fresh[name]
    }
    assert left == {}, json.dumps({" to ".join(way): found for way, found in left.items()}, indent=1)
