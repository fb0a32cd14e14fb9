"""Certificates are read again on SIGHUP: connected clients stay, new ones see the new one, a bad file changes nothing."""

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
    """SHA-256 of the leaf that a new client is shown."""
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
    eventually(lambda: "certificate" in live.log()[logged:])  # it says so
    assert _served(live) == old
    assert live.running.process.poll() is None

    certs.make(tmp_path / "certs", servers.HOST)  # and a good one is taken again
    live.signal(signal.SIGHUP)
    eventually(lambda: _served(live) != old)
