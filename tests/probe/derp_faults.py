"""The catalogue of faults, second half: HTTP, upgrade, admission, packets and the idle hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from probe.keys import new_prover
from probe.target import Target
from relay.core.handshake import make_private_key, public_key
from relay.core.wire import pack_frame
from tests.probe.faulty_servers import SWITCH, Script, saying, trickling
from tests.probe.seeding import Fault, Seed, Stage, front
from tests.probe.servers import UPGRADE, Backend, free_port

FRESH = make_private_key()
HUGE_HEAD = b"HTTP/1.1 200 OK\r\n" + b"X-Filler: " + b"x" * 400_000
GREETING_WITH_WRONG_MAGIC = SWITCH + b"\r\n" + pack_frame(1, b"DERQ" + bytes(36))
HUGE_FRAME = SWITCH + b"\r\n" + b"\x01\xff\xff\xff\xff" + b"x" * 100_000
FLOOD = pack_frame(0x7F, bytes(60_000)) * 80


def stranger(stage: Stage) -> Target:
    return stage.healthy(expect_admission="verify")


def upgrade(script: Script) -> Seed:
    """Return the fault of a relay whose upgrade runs `script`."""
    return lambda stage: stage.faulty_relay(upgrade=script)


def _loser() -> Callable[[bytes], bytes | None]:
    number = count()
    return lambda packet: packet if next(number) % 5 else None


def _crash(_: bytes) -> bytes:
    raise EOFError


LOG = "^invoke logs --host hk1 --relay, then invoke verify --host hk1$"
RESTART = "^on hk1: systemctl restart derpfleet-relay.service, then invoke verify --host hk1$"
DERP_FAULTS: dict[str, Fault] = {
    # HTTP
    "another site answers everything": (
        front(root="default_type text/html; return 200 '<h1>It works</h1>';"),
        "probe", "not a DERP server", "role:nginx",
    ),
    "another site knows no such page": (
        front(root="return 404;"), "probe", "another web server", "role:nginx",
    ),
    "the relay behind nginx is down": (
        lambda s: s.front(behind=Backend(free_port(), 0)), "probe", "relay behind it", "role:relay",
    ),
    "garbage instead of HTTP": (
        lambda s: s.instead(saying(b"\0garbage\r\n\r\n"), s.good),
        "probe", "does not speak HTTP", "role:nginx",
    ),
    "a trickling answer": (
        lambda s: s.instead(trickling(b"HTTP/1.1 200 OK\r\n"), s.good), "probe", "hangs", "role:nginx",
    ),
    "huge headers": (lambda s: s.instead(saying(HUGE_HEAD), s.good), "probe", "bounds", "role:nginx"),
    "no answer at all": (
        lambda s: s.instead(saying(b""), s.good), "probe", "does not speak HTTP|cut instead", "role:nginx",
    ),
    "port 80 only redirects": (front(port_80=""), "generate_204", "default site of port 80", "role:nginx"),
    "the relay behind port 80 is down": (
        lambda s: s.front(
            port_80=f"location = /generate_204 {{ proxy_pass http://127.0.0.1:{free_port()}; }}"
        ),
        "generate_204", "relay behind it", "role:relay",
    ),
    "a 204 without the challenge": (
        front(port_80="location = /generate_204 { return 204; }"), "generate_204", "by itself", "role:nginx",
    ),
    # upgrade
    "nginx without the upgrade headers": (front(location=""), "upgrade", "drops the headers", "role:nginx"),
    "no /derp behind the probe": (
        upgrade(saying(b"HTTP/1.1 404 Not Found\r\n\r\n")), "upgrade", "another web server", "role:nginx",
    ),
    "the backend dies at the upgrade": (
        upgrade(saying(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")), "upgrade", "relay behind it", "role:relay",
    ),
    "101 and then silence": (
        upgrade(saying(SWITCH + b"\r\n", then=60)), "upgrade", "blank line are lost", "role:nginx",
    ),
    "101 and then garbage": (
        upgrade(saying(SWITCH + b"\r\ngarbage")), "upgrade", "not a DERP server", "role:nginx",
    ),
    "a greeting with the wrong magic": (
        upgrade(saying(GREETING_WITH_WRONG_MAGIC)), "upgrade", "not a DERP server", "role:nginx",
    ),
    "a frame of 4 GiB": (upgrade(saying(HUGE_FRAME)), "upgrade", "not a DERP server", "role:nginx"),
    "a trickling upgrade": (
        upgrade(trickling(b"HTTP/1.1 101 Switching Protocols\r\n")), "upgrade", "hangs", "role:nginx",
    ),
    "huge headers at the upgrade": (upgrade(saying(HUGE_HEAD)), "upgrade", "not a DERP server", "role:nginx"),
    "hung up at the upgrade": (upgrade(saying(b"")), "upgrade", "hung up|not a DERP server", "role:"),
    "the header names another key": (
        lambda s: s.faulty_relay(header_key=public_key(FRESH)), "upgrade", "two relays", "^let every A",
    ),
    "two relays behind one name": (
        lambda s: s.faulty_relay(fresh_key=True), "upgrade", "several relays", "^let every A",
    ),
    "a left-over fast start certificate": (
        lambda s: s.bare(s.with_meta(public_key(FRESH))), "upgrade", "left over", RESTART,
    ),
    "a proxy that serves the fast start's certificate": (
        lambda s: s.front(s.with_meta(public_key(FRESH))), "upgrade", "extra certificate", "role:",
    ),
    # admission
    "a stranger admitted where verification is expected": (
        stranger, "handshake", "admits every key", "role:relay",
    ),
    "a stranger refused where the relay should be open": (
        lambda s: s.front(behind=s.closed), "handshake", "should be open", "role:relay",
    ),
    "the prover's keys refused": (
        lambda s: replace(s.front(behind=s.closed), expect_admission="verify", prover=new_prover()),
        "handshake", "does not know them", "role:relay",
    ),
    "the admission controller hangs": (
        lambda s: s.faulty_relay(after_info=lambda _: b""),
        "handshake", "waits for its admission", LOG,
    ),
    "garbage instead of ServerInfo": (
        lambda s: s.faulty_relay(after_info=lambda _: pack_frame(3, bytes(60))),
        "handshake", "no DERP server", RESTART,
    ),
    "a flood instead of ServerInfo": (
        lambda s: s.faulty_relay(after_info=lambda _: FLOOD), "handshake", "no DERP server", RESTART,
    ),
    # packets
    "a relay that loses its clients": (
        lambda s: s.faulty_relay(loses=True), "packets", "lost a client", "^let every A",
    ),
    "a relay that swallows packets": (
        lambda s: s.faulty_relay(deliver=lambda _: None), "packets", "drops their packets", LOG,
    ),
    "a relay that changes packets": (
        lambda s: s.faulty_relay(deliver=lambda p: p[:-1] + b"!"), "packets", "as they are", "role:relay",
    ),
    "a relay that loses one packet in five": (
        lambda s: s.faulty_relay(deliver=_loser()), "packets", "drops (some of )?their packets", LOG,
    ),
    "a relay that changes the head of packets": (
        lambda s: s.faulty_relay(deliver=lambda p: b"!" + p[1:]), "packets", "as they are", "role:relay",
    ),
    "large packets get stuck": (
        lambda s: s.faulty_relay(most=10_000),
        "packets",
        "path MTU",
        "tracepath .* mtu .* then invoke verify --host hk1",
    ),
    "a relay that hangs up on packets": (
        lambda s: s.faulty_relay(deliver=_crash), "packets", "hung up", LOG,
    ),
    # idle
    "nginx cuts idle connections": (
        front(location=UPGRADE + " proxy_read_timeout 1s;"), "idle", "proxy_read_timeout", "role:nginx",
    ),
}  # fmt: skip
