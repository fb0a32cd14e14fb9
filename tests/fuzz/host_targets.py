"""The readers of what passes between controller and hosts.

The agent reads messages; the controller reads facts, events and known_hosts.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shutil
import sys
import tempfile
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from paramiko import ECDSAKey, PKey

import roles
from engine import events, facts, known_hosts, messages
from engine.crash import made_of_facts
from inventory.errors import DerpfleetError
from roles import base, ports
from roles.firewall import nftables, tracking, tunnels
from roles.readers import iptables
from tests.fuzz.target import Target
from tests.roles.cases import load

sys.path.append(str(Path(__file__).parents[2] / "files"))  # where the agent's modules are
agent_wire: Any = importlib.import_module("agent.wire")

NONSENSE = (AttributeError, KeyError, RecursionError, TypeError, ValueError, zlib.error)
IDS = ("file:/etc/x", "service:x.service")
MOST = 1032  # bytes that zlib can make of one


def wire(data: bytes) -> None:
    """Let the agent read a controller's bytes, after a run that was cut off. It comes to an end.

    It keeps whole contents, and the beginning of one only that the controller's end cut off.
    """
    folder = Path(tempfile.mkdtemp(prefix="derpfleet-fuzz-"))
    left = folder / f"{DIGEST}{agent_wire.PART}"
    try:
        left.write_bytes(LEFT)
        left.chmod(0o600)
        reading = agent_wire.Wire(BytesIO(data), BytesIO())
        reading.incoming = str(folder)
        reading._read()
        messages = list(reading.messages.queue)
        assert isinstance(messages[-1], agent_wire.ControllerGone | agent_wire.Refused)
        assert all(isinstance(each, dict) or each is agent_wire.PIECE for each in messages[:-1])
        assert reading.stopped
        parts = {path for path in folder.rglob("*") if path.suffix == agent_wire.PART}
        assert all(re.fullmatch("[0-9a-f]{64}", path.stem) for path in parts)
        new = [path for path in parts if path != left or path.read_bytes() != LEFT]
        assert len(new) <= isinstance(messages[-1], agent_wire.ControllerGone)
        for path in folder.rglob("*"):
            assert path in parts or path.name == hashlib.sha256(path.read_bytes()).hexdigest()
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.stat().st_size <= len(LEFT) + MOST * len(data)
    finally:
        shutil.rmtree(folder)


def make_key(secret: int) -> PKey:
    """Return the same key for the same number, so that cases mean the same in every run."""
    import cryptography.hazmat.primitives.asymmetric.ec as ec

    private = ec.derive_private_key(secret, ec.SECP256R1())
    return ECDSAKey(vals=(private, private.public_key()))


CASE = load("other-firewalls")
OLD, NEW = make_key(7), make_key(8)


def pins(data: bytes) -> None:
    """Read the bytes as known_hosts. Never raises, pins no key of itself, and loses none."""
    text = data.decode(errors="surrogateescape")
    before = known_hosts.parse(text)
    after = known_hosts.parse(known_hosts.pin(text, "b.org", NEW))
    if not before.is_revoked("b.org", NEW):
        assert NEW in after.keys("b.org")
    for name in ("a.org", "[a.org]:2200"):
        assert [key.asbytes() for key in after.keys(name)] == [key.asbytes() for key in before.keys(name)]
        assert after.is_revoked(name, OLD) == before.is_revoked(name, OLD)


def host_facts(data: bytes) -> None:
    """Read the bytes as facts, and let the roles judge that host. They say words, or refuse it."""
    host, site, _ = CASE
    found = facts.Facts.parse(json.loads(data))
    with suppress(DerpfleetError), made_of_facts(host.name):
        assert all(isinstance(words, str) for words in roles.refusals(host, site, found))
        assert all(isinstance(words, str) for words in roles.warnings(host, site, found))


def host_events(data: bytes) -> None:
    """Read the bytes as an event of a host, before and after a plan, and what is packed in it."""
    said = json.loads(data)
    for ids in (IDS, None):
        event = events.understood(said, ids=ids)
        assert event.get("id", IDS[0]) in IDS or not event["id"]
        json.dumps(event)
        if "z" in event:
            messages.unpacked(event["z"])


CONTENT, LEFT = b"content", b"con"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
TARGETS = (
    Target(
        "agent_wire",
        wire,
        [agent_wire],
        words=[
            b'{"blob": "%s", "size": 7}\ncontent' % DIGEST.encode(), b'{"stop": 1}\n', b'"size": ',
            b'{"blob": "%s", "size": 4, "from": 3}\ntent' % DIGEST.encode(),
            b'"z": true', b'{"blob": ', b'"from": ', b"-1", b"\n", b"{", b"null\n", b"../", b"1e9",
            b"9" * 9,
        ],
    ),
    Target(
        "known_hosts",
        pins,
        [known_hosts],
        words=[
            f"{OLD.get_name()} {OLD.get_base64()}".encode(), b"@revoked ", b"@cert-authority ", b"a.org",
            b"b.org", b"[a.org]:2200", b"*", b"!", b"?", b",", b"|1|", b"\n", b" ", b"\t", b"#", b"\r",
        ],
    ),
    Target(
        "facts",
        host_facts,
        [facts, base, ports, iptables, nftables, tracking, tunnels],
        NONSENSE,
        [b'"', b"null", b"[]", b"{}", b"-1", b"1e400", b"NaN", b"65536", b"\\ud800", b"[[", b"true", b","],
    ),
    Target(
        "events",
        host_events,
        [events, messages],
        NONSENSE,
        [b'"event": "', b'"done"', b'"result"', b'"failed"', b"NaN", b"1e400", b"-1", b"null", b"[]", b"{}"],
    ),
)
