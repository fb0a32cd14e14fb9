"""The pure parts of the proof, by tables: names, certificates, addresses that STUN may report,
maps, lines."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address

import pytest

from control.served import Map
from fleet.shared.parts import deploy_part
from probe import net, tcp
from probe.certificate import Leaf
from probe.derpmap import check_map, plain
from probe.latency import Latencies, Latency, measure_all, rows
from probe.name import Addresses, judge
from probe.proof import LADDER, Broken, Proof, Rung, duration
from probe.render import ladder_lines, verdict
from probe.stun import _untrue
from probe.target import Target
from tests.probe import servers
from tests.probe.servers import LOOPBACK, free_port

DEPLOY = partial(deploy_part, servers.HK1)
HK1 = Target(
    name="hk1", domain="hk1.example.org", ipv4="198.51.100.11", ipv6="2001:db8::11",
    region_id=900, deploy=DEPLOY,
)  # fmt: skip
NOW = datetime(2026, 11, 22, tzinfo=UTC)


# --- TCP


@pytest.mark.parametrize(
    ("number", "cause", "step"),
    [
        (
            errno.EHOSTUNREACH,
            "or the host's own packet filter rejects that port",
            "iptables -S INPUT on the host, which has to accept 443/tcp",
        ),
        (errno.ENETDOWN, "the connection failed", "ping 198.51.100.11, then invoke verify --host hk1"),
    ],
)
def test_a_connection_that_fails_otherwise(
    number: int, cause: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(address: str, port: int) -> socket.socket:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tcp, "connect", fails)
    with pytest.raises(Broken) as caught:
        asyncio.run(tcp.dial("198.51.100.11", 443, HK1, net.Patience()))
    assert cause in caught.value.cause
    assert step in caught.value.next


# --- names


@pytest.mark.parametrize(
    ("target", "answer", "here", "warning"),
    [
        (HK1, ["198.51.100.11", "2001:db8::11"], Addresses("198.51.100.11", "2001:db8::11"), ""),
        (HK1, ["198.51.100.11", "2001:db8:0:0::11"], Addresses("198.51.100.11", "2001:db8::11"), ""),
        (
            HK1,
            ["198.51.100.11"],
            Addresses("198.51.100.11", "2001:db8::11"),
            "no AAAA record for 2001:db8::11",
        ),
        (HK1, ["2001:db8::11"], Addresses("198.51.100.11", "2001:db8::11"), "no A record for 198.51.100.11"),
        (
            replace(HK1, ipv6=None),
            ["198.51.100.11", "2001:db8::99"],
            Addresses("198.51.100.11", None),
            "AAAA 2001:db8::99 is not in the site file",
        ),
        (replace(HK1, ipv4=None, ipv6=None), ["198.51.100.7"], Addresses("198.51.100.7", None), ""),
        (
            replace(HK1, ipv4=None, ipv6=None),
            ["198.51.100.7", "198.51.100.8"],
            Addresses("198.51.100.7", None),
            "2 addresses of one kind",
        ),
    ],
)
def test_resolver_answers_that_hold(target: Target, answer: list[str], here: Addresses, warning: str) -> None:
    found = judge(target, [ip_address(each) for each in answer])
    assert found.value == here
    assert found.warning.startswith(warning)
    assert bool(found.warning) == bool(warning)


def test_a_name_behind_a_cdn_is_found_without_a_site() -> None:
    with pytest.raises(Broken) as broken:
        judge(Target(name="x", domain="relay.example.org"), [ip_address("172.67.0.1")])
    assert "Cloudflare" in broken.value.cause
    assert broken.value.next.endswith("then invoke verify --address x")


def test_the_system_resolver_is_asked_without_holding_up_the_loop() -> None:
    assert LOOPBACK in asyncio.run(net.resolve("localhost"))
    with pytest.raises(OSError):
        asyncio.run(net.resolve("no-such-name.invalid"))


# --- certificates


def leaf(start: timedelta, end: timedelta) -> Leaf:
    return Leaf(("hk1.example.org",), "R11", NOW + start, NOW + end, "ab" * 32)


@pytest.mark.parametrize(
    ("certificate", "words", "share"),
    [
        (leaf(timedelta(days=-29), timedelta(days=61)), "61 of 90 days left (68 %)", 61 / 90),
        (leaf(timedelta(days=-45), timedelta(days=0)), "0 of 45 days left (0 %)", 0),
        (leaf(timedelta(hours=-6), timedelta(hours=18)), "18 of 24 hours left (75 %)", 0.75),
        (leaf(timedelta(days=-91), timedelta(days=-1)), "-1 of 90 days left (-1 %)", -1 / 90),
    ],
)
def test_dates_as_a_share_of_the_lifetime(certificate: Leaf, words: str, share: float) -> None:
    assert certificate.left(NOW) == words
    assert certificate.share_left(NOW) == pytest.approx(share)


# --- STUN


@pytest.mark.parametrize(
    ("mapped", "own", "relay", "why"),
    [
        ("198.51.100.1", "198.51.100.1", "198.51.100.11", ""),  # no NAT between
        # documentation addresses are not global
        ("203.0.113.9", "192.168.1.5", "9.9.9.9", "container"),
        ("8.8.4.4", "192.168.1.5", "9.9.9.9", ""),  # behind a NAT
        ("172.17.0.1", "192.168.1.5", "9.9.9.9", "container"),
        ("172.17.0.1", "198.51.100.1", "198.51.100.11", "container"),
        ("198.51.100.11", "198.51.100.1", "198.51.100.11", "container"),  # the relay's own address
        ("127.0.0.1", "192.168.1.5", "9.9.9.9", "container"),
        ("8.8.8.8", "8.8.4.4", "9.9.9.9", "rewrites"),
        ("8.8.8.8", "127.0.0.1", "127.0.0.1", "wrong"),
        ("10.0.0.7", "192.168.1.5", "10.1.1.1", ""),  # a private network with its own NAT
    ],
)
def test_addresses_that_stun_may_report(mapped: str, own: str, relay: str, why: str) -> None:
    verdict = _untrue((ip_address(mapped), 4000), (ip_address(own), 4000), ip_address(relay))
    assert why in verdict
    assert bool(verdict) == bool(why)


# --- the served map


def served(**node: object) -> dict[str, object]:
    return {
        "regions": {900: {"regionid": 900, "nodes": [{"name": "900a", "hostname": "hk1.example.org"} | node]}}
    }


@pytest.mark.parametrize(
    ("target", "map_", "port_80"),
    [
        (
            HK1,
            served(derpport=443, stunport=3478, ipv4="198.51.100.11", ipv6="2001:db8::11", canport80=True),
            True,
        ),
        (HK1, served(derpport=0, stunport=0, ipv4="", canport80=False), False),
        (
            HK1,
            {
                "Regions": {
                    "900": {"RegionID": 900, "Nodes": [{"HostName": "hk1.example.org", "DERPPort": 443}]}
                }
            },
            None,
        ),
        (
            HK1,
            {
                "regions": {
                    "900": {
                        "region_id": 900,
                        "nodes": [{"hostname": "hk1.example.org", "derp_port": 443, "stun_port": 3478}],
                    }
                }
            },
            None,
        ),
        (replace(HK1, region_id=None), served(), None),
        (replace(HK1, https_port=3489), served(derpport=3489), None),
        (replace(HK1, stun_port=None), served(stunport=-1), None),
        (replace(HK1, pin="ab" * 32), served(certname="sha256-raw:" + "ab" * 32), None),
    ],
)
def test_maps_that_are_right(target: Target, map_: dict[str, object], port_80: bool | None) -> None:
    assert check_map(target, Map(map_), port_80=port_80).detail.startswith("region 900: hostname")


@pytest.mark.parametrize(
    ("target", "map_", "port_80", "detail"),
    [
        (HK1, {"regions": {}}, None, "has no region 900"),
        (HK1, {}, None, "has no region 900"),
        (HK1, {"regions": {"900": None}}, None, "has no region 900"),
        (HK1, {"regions": {"900": {"regionid": 900, "nodes": None}}}, None, "served with no node"),
        (replace(HK1, domain="new.example.org"), served(), None, "region 900 is served with hk1.example.org"),
        (HK1, served(derpport=3489), None, "port is 3489, real is 443"),
        (HK1, served(stunport=-1), None, "STUN port is -1, real is 3478"),
        (HK1, served(ipv4="198.51.100.12"), None, "IPv4 is '198.51.100.12', real is '198.51.100.11'"),
        (HK1, served(ipv6="none"), None, "IPv6 is 'none', real is '2001:db8::11'"),
        (HK1, served(canport80=True), False, "canport80 is True, real is False"),
        (HK1, served(insecurefortests=True), None, "insecurefortests is True"),
        (replace(HK1, pin="ab" * 32), served(certname=""), None, "certname is ''"),
    ],
)
def test_maps_that_are_wrong(
    target: Target, map_: dict[str, object], port_80: bool | None, detail: str
) -> None:
    with pytest.raises(Broken, match=detail) as broken:
        check_map(target, Map(map_), port_80=port_80)
    assert broken.value.next == "invoke deploy --host hk1"


def test_one_spelling_of_a_map() -> None:
    assert plain({"RegionID": 1, "a_b": [{"C": 2}]}) == {"regionid": 1, "ab": [{"c": 2}]}


# --- lines and verdicts


def proof(**states: Rung) -> Proof:
    rungs = tuple(states.get(name, Rung(name, "ok", "fine", ms=1.5)) for name in LADDER)
    return Proof("hk1", "hk1.example.org", rungs, 1310.0, "2026-11-22T10:00:00Z")


def test_lines_for_a_terminal() -> None:
    tls = Rung(
        "tls",
        "failed",
        "expired on 2026-11-21",
        cause="it was not renewed",
        next="invoke renew --host hk1 --force",
        ms=104.2,
    )
    stun = Rung("stun4", "ok", "31 ms", warning="mind this", ms=0.42)
    lines = ladder_lines(proof(tls=tls, stun4=stun, probe=Rung("probe", "skipped", "needs TLS")))
    assert lines[3:9] == [
        "ok       STUN, IPv4       31 ms  · 0.42 ms",
        "                 warning  mind this",
        "ok       STUN, IPv6       fine  · 1.5 ms",
        "FAILED   TLS              expired on 2026-11-21  · 104 ms",
        "                   cause  it was not renewed",
        "                    next  invoke renew --host hk1 --force",
    ]
    assert lines[9] == "skipped  /derp/probe      needs TLS"
    assert lines[-1] == "NOT PROVED in 1.3 s: TLS is broken (it was not renewed)"


@pytest.mark.parametrize(
    ("states", "line"),
    [
        ({}, "PROVED in 1.3 s: packets pass"),
        (
            {"packets": Rung("packets", "skipped", "no key")},
            "proved in 1.3 s, except that packets pass: no key",
        ),
        (
            {"handshake": Rung("handshake", "skipped", "needs TCP")},
            "NOT PROVED in 1.3 s: no rung is broken, but the relay was not reached from here",
        ),
    ],
)
def test_verdicts(states: dict[str, Rung], line: str) -> None:
    assert verdict(proof(**states)) == line


@pytest.mark.parametrize(
    ("ms", "words"), [(0.421, "0.42 ms"), (8.12, "8.1 ms"), (104.4, "104 ms"), (1310, "1.3 s")]
)
def test_durations(ms: float, words: str) -> None:
    assert duration(ms) == words


# --- distances


def test_the_matrix_of_distances() -> None:
    latencies = Latencies(
        here={"a": Latency(34.5, 36.0), "b": Latency(None, 80.0)}, between={("a", "b"): 33.0}
    )
    assert rows(latencies, ["a", "b", "c"]) == [("", [34.5, 80.0, None]), ("a", [None, 33.0, None])]


def test_a_relay_that_does_not_answer_has_no_distance() -> None:
    silent = Target(name="x", domain=LOOPBACK, https_port=free_port(), stun_port=free_port())
    assert measure_all([silent], patience=net.Patience(stun_s=0.2)) == {"x": Latency(None, None)}
