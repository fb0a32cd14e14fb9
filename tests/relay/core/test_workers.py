"""Several workers of one relay: clients, other relays and figures see one process."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.core import wire
from relay.core.wire import PeerPresent
from tests.relay import vectors as v
from tests.relay.core.test_switch import NUMBERS, gone, numbered, present, watch
from tests.relay.packing import pack_forward_packet
from tests.relay.workers import Way, Workers, figures
from tests.relay.world import World, key


@pytest.fixture
def workers():
    workers = Workers(3)
    yield workers
    workers.carry()
    assert workers.problems() == []


def reached(workers, sender, *clients):
    """Return the numbers of the clients that a packet to the key of all of them comes to."""
    sender.sends(clients[0], b"?")
    workers.carry()
    return [number for number, client in enumerate(clients) if client.gets()]


# The newest connection of all workers.


@pytest.mark.parametrize("at", [0, 1, 2])
def test_packets_go_to_the_newest_connection_whichever_worker_has_it(workers, at):
    sender = workers.connect("sender", at)
    twins = []
    for worker in (0, 1, 2, 1, 0):
        twins.append(workers.connect("twin", worker))
        assert reached(workers, sender, *twins) == [len(twins) - 1]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_connection_that_speaks_is_the_newest_again(workers, at):
    sender = workers.connect("sender", at)
    twins = [workers.connect("twin", worker) for worker in (0, 0, 1, 2)]
    for number in (0, 1, 2, 3, 0):
        workers.pass_time()
        twins[number].says(wire.pack_ping(b"12345678"))
        workers.carry()
        twins[number].hears()
        assert reached(workers, sender, *twins) == [number]


def test_when_the_newest_leaves_the_one_that_spoke_last_before_it_is_next(workers):
    sender = workers.connect("sender", 2)
    first, second, third = (workers.connect("twin", worker) for worker in (0, 1, 2))
    workers.pass_time()
    first.says(wire.pack_ping(b"12345678"))
    workers.carry()
    first.hears()
    first.leaves()
    workers.carry()
    assert reached(workers, sender, second, third) == [1]
    third.leaves()
    workers.carry()
    assert reached(workers, sender, second, second)[0] == 0
    assert not second.session.rivals


def test_news_of_the_same_moment_lose_to_the_own_connection(workers):
    """Clocks have nanoseconds; but a packet must not travel back and forth."""
    ours = workers.worlds[0].connect("twin")
    theirs = workers.worlds[1].connect("twin")
    workers.carry()
    assert ours.outbox.current
    assert theirs.outbox.current


def test_a_packet_on_its_way_to_a_worker_is_delivered_there(workers):
    """The client has just gone to a third worker. One process would have delivered it before."""
    sender = workers.connect("sender", 0)
    old = workers.connect("twin", 1)
    sender.sends(old, b"before")
    for packet in (b"run", v.SMALLEST_DISCO):
        sender.sends(old, packet)
    new = workers.connect("twin", 2)
    assert [packet for _, packet in old.gets()] == [b"before", b"run", v.SMALLEST_DISCO]
    assert reached(workers, sender, old, new) == [1]


def test_a_packet_of_an_outside_relay_goes_to_the_newest_connection_too(workers):
    outside = workers.connect("relay", 0, is_mesh=True)
    twins = [workers.connect("twin", worker) for worker in (0, 1)]
    outside.says(pack_forward_packet(key("far"), key("twin"), b"news"))
    workers.carry()
    assert [client.gets() for client in twins] == [[], [(key("far"), b"news")]]
    workers.pass_time()
    twins[0].says(wire.pack_ping(b"12345678"))
    workers.carry()
    twins[0].hears()
    outside.says(pack_forward_packet(key("far"), key("twin"), b"more"))
    workers.carry()
    assert [client.gets() for client in twins] == [[(key("far"), b"more")], []]


def test_another_workers_client_comes_before_every_link_to_another_relay(workers):
    links = workers.links_outside("elsewhere")
    for link in links:
        link.has("bob")
    sender = workers.connect("sender", 0)
    sender.sends(key("bob"), b"far")
    assert len(links[0].hears()) == 1
    bob = workers.connect("bob", 1)
    sender.sends(bob, b"near")
    workers.carry()
    assert (bob.gets(), links[0].hears()) == ([(sender.key, b"near")], [])
    bob.leaves()
    workers.carry()
    sender.sends(key("bob"), b"far again")
    assert len(links[0].hears()) == 1
    counts = workers.stats().counters
    assert (counts.packets_forwarded_out, counts.packets_to_workers) == (2, 1)
    assert counts.multiforwarder_created == 0


# Watchers, and the figures.


def test_watchers_hear_of_every_connection_and_once_that_a_key_is_gone(workers):
    watcher = workers.worlds[2].connect("relay", is_mesh=True)
    watcher.says(wire.WATCH_CONNS_FRAME)
    watcher.hears()
    twins = [workers.connect("twin", worker) for worker in (0, 1, 0, 2)]
    assert present(watcher.hears()) == ["twin"] * 4
    workers.pass_time()
    twins[0].says(wire.pack_ping(b"12345678"))
    for twin in twins[:3]:
        twin.leaves()
        workers.carry()
        assert watcher.hears() == []
    newcomer = watch(workers.worlds[1], "newcomer")
    assert sorted(present(newcomer.hears())) == ["newcomer", "relay", "twin"]
    workers.carry()
    watcher.hears()
    twins[3].leaves()
    workers.carry()
    assert (gone(watcher.hears()), gone(newcomer.hears())) == (["twin"], ["twin"])


def test_a_worker_that_dies_takes_its_connections_along(workers):
    watcher = watch(workers.worlds[2], "relay")
    old, new = workers.connect("twin", 0), workers.connect("twin", 1)
    lost = workers.connect("lost", 1)
    watcher.hears()
    for (here, there), way in workers.ways.items():
        if there == 1:
            way.link.breaks()
        elif here == 1:
            way.session.leaves()
    workers.ways = {pair: way for pair, way in workers.ways.items() if 1 not in pair}
    assert gone(watcher.hears()) == ["lost"]
    sender = workers.connect("sender", 2)
    assert reached(workers, sender, old, new, lost) == [0]
    assert not old.session.rivals


# A client is admitted when all know it.


def test_a_worker_knows_when_it_has_met_all_clients_of_the_others():
    workers = Workers(3)
    newcomer = World()
    assert newcomer.switch.met == 0
    for number, world in enumerate(workers.worlds):
        world.connect(f"client {number}")
        way = Way(3, newcomer, world)
        assert newcomer.switch.met == number
        way.carry()
        assert newcomer.switch.peers[key(f"client {number}")].siblings
    newcomer.link("another relay")
    assert newcomer.switch.met == 3


@pytest.fixture
def asked():
    """Return two workers, and the calls after one of them asked whether the other knows all."""
    workers = Workers(2)
    calls: list[str] = []
    switch = workers.worlds[0].switch
    return workers, calls, switch.confirmations.ask(switch.siblings, lambda: calls.append("known"))


def test_a_worker_that_knows_everything_confirms_it_once(asked):
    workers, calls, _ = asked
    assert calls == []
    workers.carry()
    assert calls == ["known"]
    way = workers.ways[1, 0]
    way.session.says(wire.pack_pong((1).to_bytes(8, "big")), wire.pack_pong(bytes(8)))
    assert calls == ["known"]
    assert workers.stats().counters.unknown_frames == 0


def test_the_confirmation_comes_behind_the_news(asked):
    workers, calls, _ = asked
    bob = workers.worlds[0].connect("bob")
    workers.worlds[0].switch.confirmations.ask(workers.worlds[0].switch.siblings, lambda: calls.append("bob"))
    assert workers.ways[1, 0].carry_news()
    assert calls == ["known", "bob"]
    assert workers.worlds[1].switch.peers[bob.key].siblings


def test_all_others_have_to_confirm():
    workers, calls = Workers(3), []
    switch = workers.worlds[0].switch
    switch.confirmations.ask(switch.siblings, lambda: calls.append("known"))
    workers.ways[1, 0].carry_news()
    assert calls == []
    workers.ways[2, 0].carry_news()
    assert calls == ["known"]


def test_nobody_waits_for_a_worker_that_is_gone_or_hangs(asked):
    workers, calls, number = asked
    workers.worlds[0].switch.confirmations.give_up(number)
    workers.worlds[0].switch.confirmations.give_up(number)
    assert calls == ["known"]
    switch = workers.worlds[0].switch
    for _ in range(2):
        switch.confirmations.ask(switch.siblings, lambda: calls.append("gone"))
    workers.ways[1, 0].session.leaves()
    assert calls == ["known", "gone", "gone"]


def test_one_process_asks_nobody(world):
    calls: list[str] = []
    assert world.switch.confirmations.ask(world.switch.siblings, lambda: calls.append("known")) == 0
    assert calls == ["known"]


def test_a_state_travels_with_the_description():
    state = PeerPresent(v.C, None, 0, 1, "tsnet", 3, 12.5)
    frame = wire.pack_peer_state(state)
    assert wire.parse_peer_state(frame[5:]) == state
    assert frame[5:].endswith(wire.pack_peer_present(state)[5:])
    assert wire.parse_peer_state(frame[5 : 5 + wire.MIN_PEER_STATE]) == PeerPresent(
        v.C, connections=3, since=12.5
    )


class Alike(RuleBasedStateMachine):
    """The same is done to three workers and to one process; every client hears the same of both."""

    def __init__(self):
        super().__init__()
        self.workers, self.one = Workers(3), World()
        self.pairs = []
        self.sent = 0

    def some(self, number):
        return self.pairs[number % len(self.pairs)] if self.pairs else None

    def pass_time(self):
        self.workers.pass_time()
        self.one.now += 1

    @rule(name=st.sampled_from("abcd"), worker=st.integers(0, 2), mesh=st.booleans())
    def come(self, name, worker, mesh):
        self.one.now += 1
        pair = (self.workers.connect(name, worker, is_mesh=mesh), self.one.connect(name, is_mesh=mesh))
        if mesh:
            for client in pair:
                client.says(wire.WATCH_CONNS_FRAME)
        self.pairs.append(pair)

    @rule(number=NUMBERS)
    def go(self, number):
        if pair := self.some(number):
            self.pairs.remove(pair)
            for client in pair:
                client.leaves()

    @rule(number=NUMBERS)
    def speak(self, number):
        self.pass_time()
        for client in self.some(number) or ():
            client.says(wire.pack_frame(0x77))

    @rule(number=NUMBERS, to=st.sampled_from("abcde"), count=st.integers(1, 3), disco=st.booleans())
    def send(self, number, to, count, disco):
        if pair := self.some(number):
            self.pass_time()
            numbers = range(self.sent, self.sent + count)
            self.sent += count
            for client in pair:
                client.says(*numbered(numbers, to, disco))

    @rule(number=NUMBERS, to=st.sampled_from("abcde"))
    def forward(self, number, to):
        pair = self.some(number)
        if pair and pair[0].session.is_mesh:
            self.pass_time()
            for client in pair:
                client.says(pack_forward_packet(key("far"), key(to), b"forwarded"))

    @invariant()
    def every_client_hears_the_same(self):
        self.workers.carry()
        for ours, theirs in self.pairs:
            assert sorted(ours.hears()) == sorted(theirs.hears())
            assert ours.session.rivals is theirs.session.rivals
            assert ours.outbox.current is theirs.outbox.current
        assert self.workers.problems() == self.one.switch.consistency_check() == []

    @invariant()
    def the_figures_are_the_same(self):
        several, one = self.workers.stats(), figures(self.one)
        between = {"packets_from_workers": 0, "packets_to_workers": 0}
        assert replace(several.counters, **between) == one.counters
        assert several.counters.packets_from_workers == several.counters.packets_to_workers
        assert several.gauges == one.gauges
        assert several.dropped_packets == one.dropped_packets


TestAlike = Alike.TestCase
TestAlike.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
