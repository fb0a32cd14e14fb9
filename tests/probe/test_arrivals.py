"""A time-out says where the packets are lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probe.arrivals import Arrivals, Unanswered, explained, read_arrivals, unanswered
from probe.proof import LADDER, Proof, Rung
from probe.target import Target

TARGET = Target(name="hk1", domain="hk1.example.org", deploy=lambda part: f"deploy {part.name}")
PLACE = {"proto": "tcp", "address": "2001:db8::10", "port": 443}
TCP = Rung("tcp", "failed", "did not answer", cause="?", next="?", data={"unanswered": PLACE})


def proof(*rungs: Rung) -> Proof:
    known = {rung.name: rung for rung in rungs}
    whole = tuple(known.get(name, Rung(name, "skipped")) for name in LADDER)
    return Proof("hk1", "hk1.example.org", whole, 1.0, "2026-11-22T10:00:00Z")


@pytest.mark.parametrize(
    ("found", "cause", "step"),
    [
        (
            Arrivals(0, 0),
            "no packet arrives at the host: the provider's security group",
            "open 443/tcp, 80/tcp, 3478/udp in the provider's console, then invoke verify --host hk1",
        ),
        (Arrivals(3, 0), "the host's own firewall drops it (3 packets arrived)", "deploy FIREWALL"),
        (Arrivals(1, 0), "the host's own firewall drops it (1 packet arrived)", "deploy FIREWALL"),
        (Arrivals(5, 4), "5 packets arrived at the host, and it answers on 443/tcp", "another network"),
    ],
)
def test_the_cause_is_where_the_packets_are_lost(found: Arrivals, cause: str, step: str) -> None:
    rung = explained(TARGET, proof(TCP), {"tcp/6/443": found})["tcp"]
    assert cause in rung.cause
    assert step in rung.next
    assert (rung.status, rung.detail) == ("failed", "did not answer")


def test_a_silent_relay_looks_like_a_firewall() -> None:
    """TCP answers for a program that hangs, and UDP does not."""
    stun = replace(TCP, name="stun6", data={"unanswered": PLACE | {"proto": "udp", "port": 3478}})
    rung = explained(TARGET, proof(stun), {"udp/6/3478": Arrivals(3, 0)})["stun6"]
    assert rung.cause == "the host's own firewall drops it (3 packets arrived), or the relay is silent"


def test_ports_that_the_relay_does_not_offer_are_not_named() -> None:
    target = replace(TARGET, http_port=None, stun_port=None, https_port=3489)
    rung = explained(target, proof(TCP), {"tcp/6/443": Arrivals(0, 0)})["tcp"]
    assert "open 3489/tcp in the provider's console" in rung.next


def test_only_a_broken_rung_without_an_answer_is_explained() -> None:
    assert unanswered(TCP) == Unanswered("tcp", "2001:db8::10", 443)
    assert unanswered(replace(TCP, data={})) is None
    assert unanswered(replace(TCP, status="skipped")) is None  # STUN while the front is broken
    before = proof(TCP)
    assert explained(TARGET, before, {"tcp/4/443": Arrivals(0, 0)}) == before
    assert Proof.from_json(before.to_json())["tcp"].data == TCP.data


def test_what_the_host_prints_is_read_or_refused() -> None:
    assert read_arrivals('{"udp/4/3478": [3, 0]}') == {"udp/4/3478": Arrivals(3, 0)}
    for text in ("", "[]x", "[1]", '{"udp/4/3478": 3}', '{"udp/4/3478": [1]}', '{"x": ["a", "b"]}'):
        with pytest.raises((ValueError, TypeError)):
            read_arrivals(text)
