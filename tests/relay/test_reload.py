"""SIGHUP reads certificates again: connected clients stay, and new ones see the new one.

A bad file changes nothing.
"""

from __future__ import annotations

import hashlib
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.relay import certs, servers
from relay import client as derp
from tests.relay.live import Live, eventually, relay


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with relay(tmp_path) as running:
        yield running


def _served(live: Live) -> str:
    """Return the SHA-256 of the leaf that a new client is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with live.tcp() as tcp, context.wrap_socket(tcp, server_hostname=servers.HOST) as tls:
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


def test_new_clients_see_the_new_certificate(live: Live, tmp_path: Path) -> None:
    with live.connect() as alice, live.connect() as bob:
        old = _served(live)
        certs.make(tmp_path / "certs", servers.HOST)
        assert _served(live) == old  # not before it is asked to
        live.signal(signal.SIGHUP)
        eventually(lambda: _served(live) != old)
        alice.send(bob.key, b"still connected")
        assert bob.expect(derp.Received).packet == b"still connected"
    live.assert_undisturbed()


@pytest.mark.parametrize("damage", ["missing", "garbage", "other key", "unreadable key"])
def test_a_bad_certificate_leaves_the_old_one(live: Live, tmp_path: Path, damage: str) -> None:
    old, logged = _served(live), len(live.log())
    crt, key = tmp_path / "certs" / f"{servers.HOST}.crt", tmp_path / "certs" / f"{servers.HOST}.key"
    if damage == "missing":
        crt.unlink()
    elif damage == "garbage":
        crt.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    elif damage == "other key":
        certs.make(tmp_path / "other", servers.HOST)
        key.write_bytes((tmp_path / "other" / f"{servers.HOST}.key").read_bytes())
    else:
        key.write_bytes(b"\0\1\2")
    live.signal(signal.SIGHUP)
    eventually(lambda: "the old one stays in force part=certificate" in live.log()[logged:])
    assert _served(live) == old
    assert live.running.process.poll() is None

    certs.make(tmp_path / "certs", servers.HOST)  # and a good one is taken again
    live.signal(signal.SIGHUP)
    eventually(lambda: _served(live) != old)


@pytest.mark.parametrize(("good", "bad"), [("certificate", "limits"), ("limits", "certificate")])
def test_what_is_good_is_taken_though_the_other_is_bad(tmp_path: Path, good: str, bad: str) -> None:
    limits = tmp_path / "limits.json"
    limits.write_text('{"PerClientRateLimitBytesPerSec": 1000000}')
    with relay(tmp_path, "-rate-config", str(limits)) as live:
        old = _served(live)
        if good == "certificate":
            limits.write_text("{")
            certs.make(tmp_path / "certs", servers.HOST)
        else:
            limits.write_text('{"PerClientRateLimitBytesPerSec": 2000000}')
            (tmp_path / "certs" / f"{servers.HOST}.crt").unlink()
        live.signal(signal.SIGHUP)
        eventually(
            lambda: f"reloaded part={good}" in live.log() and f"stays in force part={bad}" in live.log()
        )
        counts = live.metrics()
        assert (
            counts[f'relay_reloads{{part="{good}"}}'] == counts[f'relay_reload_failures{{part="{bad}"}}'] == 1
        )
        assert (_served(live) != old) == (good == "certificate")
        assert counts["derp_rate_limit_per_client_bytes_per_second"] == (
            2_000_000 if good == "limits" else 1_000_000
        )
