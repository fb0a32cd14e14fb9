"""The variants of each choice that a lab's host walks through, as rows of words of the site file.

A walk takes every row after every other. So it takes all ordered pairs of the variants of each key
that its rows have, of several independent keys at once.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping
from typing import Any

import lab
from lab import zone
from lab.certificates import make_server_certificate

HK1 = "hk1"
Row = Mapping[str, str]
Materials = Mapping[tuple[str, str], Mapping[str, Any]]
AUTH_KEY = "TS_AUTHKEY"
FOLDER = "/root/.acme.sh/hk1.derp.lab_ecc"
PAUSED, IDLE = "paused.service", "[Service]\nExecStart=sleep infinity\n"
NODE_KEY = "nodekey:" + "0123456789abcdef" * 4
MIRROR = "http://deb.debian.org/debian"

DEFAULTS: Row = {"front": "direct", "certificate.source": "self-signed", "relay.admission": "open"}
OURS: Row = {"relay.program": "python", "relay.under": "systemd"}
DERPER: Row = {"relay.program": "derper"}
ACME: Row = {"certificate.source": "acme"}
WALKS: Mapping[str, tuple[Row, ...]] = {
    "front": (
        {"front": "nginx"},
        {"front": "nginx-stream"},
        {"front": "direct"},
        {"front": "external", "external.kind": "haproxy", "external.tls": "passthrough"},
    ),
    "program and certificate": (
        {**OURS, **ACME, "front": "nginx"},
        {**DERPER, "relay.under": "systemd", "certificate.source": "manual"},
        {**DERPER, "relay.under": "supervisord", "certificate.source": "on-host"},
        {**DERPER, "relay.under": "docker", "certificate.source": "self-signed"},
        {
            **DERPER, "relay.under": "systemd", "certificate.source": "front",
            "front": "external", "external.kind": "haproxy", "external.tls": "terminated",
        },
    ),
    "admission, challenge, renewal and packages": (
        {
            **ACME, "relay.admission": "headscale", "packages.from": "host",
            "certificate.challenge": "http", "certificate.renewal": "timer",
        },
        {
            **ACME, "relay.admission": "url", "packages.from": "controller",
            "certificate.challenge": "dns", "certificate.renewal": "cron",
        },
        {
            **ACME, "relay.admission": "tailscaled", "packages.from": "host",
            "packages.mirror": "debian", "certificate.challenge": "standalone",
            "certificate.renewal": "timer",
        },
        {
            **ACME, "relay.admission": "keys", "packages.from": "controller",
            "certificate.challenge": "http", "certificate.renewal": "cron",
        },
        {
            **ACME, "relay.admission": "open", "packages.from": "host",
            "certificate.challenge": "standalone", "certificate.renewal": "timer",
        },
    ),
}  # fmt: skip
# Words that stand for the module of another: tests/test_switches.py compares the roles' tables.
SAME: Mapping[str, Mapping[str, str]] = {
    "front": {"none": "direct"},
    "certificate.source": {
        "letsencrypt": "acme", "letsencrypt-staging": "acme", "auto": "self-signed",
    },
}  # fmt: skip


def materials(stage: lab.Lab, archive: str) -> Materials:
    """Make what the rows name, and return the settings that each word needs beside itself.

    `archive`: an image of derper beside the site file.
    """
    stage.run_in(HK1, ["sh", "-c", f"cat >/etc/systemd/system/{PAUSED}"], input=IDLE)
    stage.run_in(HK1, ["systemctl", "start", PAUSED])
    (stage.root / "tsig").write_text(zone.start(stage))
    server = {"server": str(stage.topology.ipv4(zone.ZONE_HOST)), "port": zone.ZONE_PORT}
    by_zone = {"provider": "rfc2136", "key_name": zone.KEY_NAME, "secret": "file:tsig", "propagation_s": 1}
    _, chain, key = make_server_certificate("hk1.derp.lab", stage.topology.ipv4(HK1))
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain.decode())).hexdigest()
    for name, content in (("privkey.pem", key), ("fullchain.pem", chain)):
        (stage.root / name).write_bytes(content)
        script = f"umask 077; mkdir -p {FOLDER}; cat >{FOLDER}/{name}"
        stage.run_in(HK1, ["sh", "-c", script], input=content.decode())
    return {
        ("relay.under", "docker"): {"docker": {"archive": archive}},
        ("certificate.source", "manual"): {
            "certificate": {"fullchain": "fullchain.pem", "key": "file:privkey.pem", "pin": pin}
        },
        ("certificate.source", "on-host"): {
            "certificate": {
                "fullchain_path": f"{FOLDER}/fullchain.pem", "key_path": f"{FOLDER}/privkey.pem", "pin": pin,
            }
        },
        ("certificate.challenge", "dns"): {"certificate": {"dns": by_zone | server}},
        ("certificate.challenge", "standalone"): {"certificate": {"stop": PAUSED}},
        ("packages.mirror", "debian"): {"packages": {"mirror": {"debian": MIRROR}}},
        ("relay.admission", "keys"): {"relay": {"keys": [NODE_KEY]}},
        ("relay.admission", "url"): {"relay": {"verify_client_url": f"{stage.headscale.url}/verify"}},
        ("relay.admission", "tailscaled"): {
            "relay": {"tailscaled": {"manage": True, "auth_key": f"env:{AUTH_KEY}"}}
        },
    }  # fmt: skip


def name_of(row: Row) -> str:
    """Return a row in a line."""
    return " ".join(f"{key}={word}" for key, word in row.items())


def settings_of(row: Row, more: Materials) -> dict[str, Any]:
    """Return the host's settings for a row."""
    settings = dict[str, Any]()
    for key, word in {**DEFAULTS, **row}.items():
        part, _, name = key.rpartition(".")
        _merge(settings, {part: {name: word}} if part else {name: word})
        _merge(settings, more.get((key, word), {}))
    return settings


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Set the values of `more` in `into`, of parts in both one by one."""
    for key, value in more.items():
        if isinstance(value, Mapping):
            into[key] = dict(into[key]) if isinstance(into.get(key), Mapping) else {}
            _merge(into[key], value)
        else:
            into[key] = value
