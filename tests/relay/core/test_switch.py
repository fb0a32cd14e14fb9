"""The switch: news for clients, active connections, and a reason for each lost packet."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.core import wire
from relay.core.wire import PeerPresent
from tests.relay.packing import pack_forward_packet
from tests.relay.world import SERVER, World, key

GONE = bytes([wire.GONE_DISCONNECTED])
# The numbers that choose a client, as far as there are any.
NUMBERS = st.integers(0, 20)


def watch(world, name="watcher", **options):
    watcher = world.connect(name, is_mesh=True, **options)
    watcher.says(wire.WATCH_CONNS_FRAME)
    return watcher


def present(frames):
    """Return the names in PEER_PRESENT frames."""
    return [
        wire.parse_peer_present(payload).key.rstrip(b".").decode()
        for kind, payload in frames
        if kind == wire.PEER_PRESENT
    ]


def gone(frames):
    return [
        payload[:32].rstrip(b".").decode()
        for kind, payload in frames
        if kind == wire.PEER_GONE and payload[32:] == GONE
    ]


# Peer gone.


def test_receivers_hear_once_that_the_sender_is_gone(world):
    alice, bob, carol = (world.connect(name) for name in ("alice", "bob", "carol"))
    alice.sends(bob, b"1")
    alice.sends(bob, b"22")
    carol.sends(alice, b"a pure sender is not told")
    for client in (alice, bob, carol):
        client.hears()
    alice.leaves()
    assert (gone(bob.hears()), gone(carol.hears())) == (["alice"], [])
    alice = world.connect("alice")
    alice.sends(bob, b"3")
    bob.hears()
    alice.leaves()
    assert gone(bob.hears()) == []
    assert world.switch.counts.peer_gone_disconnected_frames == 1


def test_a_receiver_that_left_hears_nothing(world):
    alice, bob = world.connect("alice"), world.connect("bob")
    alice.sends(bob, b"1")
    bob.leaves()
    alice.leaves()


def test_receivers_hear_nothing_before_the_last_connection_of_a_key_ends(world):
    alice, bob = world.connect("alice"), world.connect("bob")
    again = world.connect("alice")
    alice.sends(bob, b"1")
    bob.hears()
    alice.leaves()
    assert bob.hears() == []
    again.leaves()
    assert gone(bob.hears()) == ["alice"]


# Duplicates.


def test_the_last_to_speak_is_active(world):
    sender = world.connect("sender")
    first, second, third = (world.connect("twin") for _ in range(3))

    def reached(packet=b"?"):
        sender.sends(key("twin"), packet)
        got = [number for number, client in enumerate((first, second, third), 1) if client.gets()]
        assert len(got) == 1
        return got[0]

    assert reached() == 3
    first.says(wire.pack_frame(0x77))  # any frame counts, even an unknown one
    assert reached() == 1
    first.says(wire.pack_pong(b"12345678"))  # it is active already
    second.says(wire.pack_ping(b"12345678"))
    assert second.hears() == [(wire.PONG, b"12345678")]
    assert reached() == 2
    third.says(b"\x12")  # half a header is no frame
    assert reached() == 2
    second.leaves()
    assert reached() == 1
    first.leaves()
    assert reached() == 3
    assert not third.session.rivals
    assert world.switch.counts.total_dup_client_conns == 2


# Watchers.


def test_a_watcher_sees_itself_and_all_and_every_change(world):
    world.connect("alice")
    watcher, other = watch(world), watch(world, "other")
    assert sorted(present(watcher.hears())) == ["alice", "other", "watcher"]
    bob, again = world.connect("bob"), world.connect("bob")
    assert present(watcher.hears()) == ["bob", "bob"]
    bob.leaves()
    assert watcher.hears() == []
    again.leaves()
    assert gone(watcher.hears()) == ["bob"]
    assert sorted(present(other.hears())) == ["alice", "bob", "bob", "other", "watcher"]
    watcher.says(wire.WATCH_CONNS_FRAME)  # once more: the whole picture once more
    assert len(present(watcher.hears())) == 3
    watcher.leaves()
    assert gone(other.hears()) == ["watcher"]


# Mesh links.


def test_a_local_connection_wins_over_a_link(world):
    link = world.link("far")
    link.has("bob")
    alice, bob = world.connect("alice"), world.connect("bob")
    alice.sends(bob, b"local")
    assert bob.gets() == [(alice.key, b"local")]
    bob.leaves()
    assert gone(alice.hears()) == []  # still in the region
    alice.sends(bob, b"far")
    assert len(link.hears()) == 1


def test_the_oldest_link_is_used_until_it_withdraws(world):
    first, second = world.link("first"), world.link("second")
    alice = world.connect("alice")
    for link in (first, second, first):
        link.has("bob")
    alice.sends(key("bob"), b"1")
    assert (len(first.hears()), len(second.hears())) == (1, 0)
    second.lost("stranger")
    first.lost("bob")
    first.lost("bob")
    alice.sends(key("bob"), b"2")
    assert (len(first.hears()), len(second.hears())) == (0, 1)
    counts = world.switch.counts
    assert (
        counts.multiforwarder_created,
        counts.multiforwarder_deleted,
        counts.packet_forwarder_delete_other_value,
    ) == (1, 1, 2)


def test_a_broken_link_takes_its_keys_along(world):
    link, alice = world.link("far"), world.connect("alice")
    relay = world.connect("relay", is_mesh=True)
    link.has("bob")
    link.has("carol")
    relay.says(pack_forward_packet(key("bob"), alice.key, b"hello"))
    alice.hears()
    alice.sends(key("bob"), b"1")
    link.breaks()
    assert gone(alice.hears()) == ["bob"]
    alice.sends(key("bob"), b"2")
    assert (world.dropped("gone_disconnected"), world.dropped("unknown_dest")) == (1, 1)
    assert list(world.switch.peers) == [alice.key, relay.key]


def test_the_relays_own_key_is_no_client(world):
    link = world.link("far")
    world.switch.announce(link.link, PeerPresent(SERVER))
    assert not world.switch.peers


# Other workers of this relay.


def test_relays_outside_see_the_workers_as_one(world):
    world.link("far away").has("remote")
    outside, inside = watch(world, "outside"), watch(world, "inside", sibling=True)
    worker, second, far = (
        world.link("worker", sibling=True),
        world.link("second", sibling=True),
        world.link("far"),
    )
    assert present(outside.hears()) == ["outside"]
    inside.hears()
    far.has("stranger")
    worker.has("bob")
    second.has("bob")
    assert (present(outside.hears()), inside.hears()) == (["bob", "bob"], [])
    newcomer = watch(world, "newcomer")
    assert sorted(present(newcomer.hears())) == ["bob", "newcomer", "outside"]
    outside.hears()
    inside.hears()
    bob = world.connect("bob")
    bob.leaves()
    assert (gone(outside.hears()), gone(inside.hears())) == ([], ["bob"])
    worker.lost("bob")
    assert gone(outside.hears()) == []
    second.lost("bob")
    assert (gone(outside.hears()), gone(inside.hears())) == (["bob"], [])


def test_workers_themselves_are_no_clients(world):
    outside = watch(world, "outside")
    outside.hears()
    sibling = world.connect("worker", is_mesh=True, sibling=True)
    newcomer = watch(world, "newcomer")
    assert present(outside.hears()) == ["newcomer"]
    assert sorted(present(newcomer.hears())) == ["newcomer", "outside"]
    sibling.leaves()
    assert outside.hears() == []


def test_close_peer_reaches_the_other_workers_once(world):
    worker, far = world.link("worker", sibling=True), world.link("far")
    worker.has("bob")
    far.has("bob")
    world.connect("relay", is_mesh=True).says(wire.pack_close_peer(key("bob")))
    assert worker.hears() == [(wire.CLOSE_PEER, key("bob"))]
    assert far.hears() == []
    world.connect("sibling", is_mesh=True, sibling=True).says(wire.pack_close_peer(key("bob")))
    assert worker.hears() == []


# The consistency check finds faults.


def test_the_consistency_check_names_what_is_wrong():
    world = World()
    alice, bob = world.connect("alice"), world.connect("bob")
    alice.sends(bob, b"x")
    check = world.switch.consistency_check
    assert check() == []
    alice.session.rx_packets += 1
    assert check() == ["2 packets arrived, but 1 left, 0 were dropped and 0 wait"]
    alice.session.rx_packets -= 1
    alice.session.rivals = True
    bob.outbox.current = False
    bob.session.heard = None
    world.switch.sessions.discard(bob.session)
    world.switch.watchers.add(bob.session)
    world.switch.peers[key("ghost")] = type(world.switch.peers[alice.key])(key("ghost"))
    problems = "\n".join(check())
    for words in (
        "1 connections, but 2",
        "a wrong mark",
        "a wrong active",
        "does not know it",
        "watcher is not",
        "known, but not connected",
    ):
        assert words in problems


def numbered(numbers, to, disco):
    """Return the frames of packets to `to`, one with each number."""
    head, tail = (wire.DISCO_MAGIC, bytes(52)) if disco else (b"", b"")
    return [wire.pack_send_packet(key(to), head + n.to_bytes(4, "big") + tail) for n in numbers]


class Traffic(RuleBasedStateMachine):
    """Clients come, go, stall and send at random; every packet is delivered in order, dropped with
    a reason, or waits.
    """

    def __init__(self):
        super().__init__()
        self.world = World()
        self.rng = random.Random(1)
        self.clients = []
        self.sent = 0
        self.seen = {}

    def some(self, number):
        return self.clients[number % len(self.clients)] if self.clients else None

    @rule(name=st.sampled_from("abcdef"))
    def come(self, name):
        self.clients.append(self.world.connect(name))

    @rule(number=NUMBERS)
    def go(self, number):
        if client := self.some(number):
            self.hear(client)
            self.clients.remove(client)
            client.leaves()

    @rule(number=NUMBERS, blocked=st.booleans())
    def stall(self, number, blocked):
        if client := self.some(number):
            self.world.tick()
            client.outbox.block() if blocked else client.outbox.unblock()

    @rule(number=NUMBERS, to=st.sampled_from("abcdefg"), count=st.integers(1, 80), disco=st.booleans())
    def send(self, number, to, count, disco):
        if client := self.some(number):
            numbers = range(self.sent + 1, self.sent + 1 + count)
            self.sent += count
            client.says(*numbered(numbers, to, disco))

    @rule(number=NUMBERS)
    def ping(self, number):
        if client := self.some(number):
            client.says(wire.pack_ping(b"12345678"))

    @rule()
    def hear_all(self):
        for client in self.clients:
            self.hear(client)

    def hear(self, client):
        """Check that the packets of a pair and a lane arrive in order, none twice."""
        for source, packet in client.gets():
            disco = packet.startswith(wire.DISCO_MAGIC)
            number = int.from_bytes(packet[6:10] if disco else packet, "big")
            pair = (id(client), source, disco)
            assert number > self.seen.get(pair, 0)
            self.seen[pair] = number

    @invariant()
    def nothing_is_lost_unseen(self):
        assert self.world.switch.consistency_check() == []
        assert self.world.switch.totals().packets_received == self.sent


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=60, stateful_step_count=40)
