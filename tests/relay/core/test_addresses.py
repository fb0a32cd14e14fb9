import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.addresses import CROWD, CROWD_IN_ALL, PATIENCE_S, AddressTable, TooMany, network_of


class Holder:
    def give_up(self, reason):
        pass


NOW = 1000.0
LATE = NOW + PATIENCE_S


def enter(table, address, holder=None, now=NOW):
    return table.enter(address, holder or Holder(), now)


def refusal(table, address, now=LATE):
    with pytest.raises(TooMany) as e:
        enter(table, address, now=now)
    return e.value


def reason(table, address):
    return refusal(table, address).reason


def full_of_connections():
    table = AddressTable(connections=1)
    enter(table, "a")
    return table


def test_a_thousand_half_open_handshakes_from_one_address_leave_room_for_others():
    table = AddressTable(handshakes=64, handshakes_in_all=1024)
    refused = 0
    for i in range(1000):
        try:
            enter(table, "203.0.113.7", now=NOW if i < 64 else LATE)
        except TooMany as e:
            assert e.reason == "too_many_handshakes_here"
            refused += 1
    assert refused == 936 and table.handshakes == 64
    enter(table, "203.0.113.8")


def test_settled_connections_make_room_for_handshakes_but_still_count():
    table = AddressTable(connections=2, handshakes=1)
    first = enter(table, "a")
    assert reason(table, "a") == "too_many_handshakes_here"
    first.settle()
    first.settle()
    second = enter(table, "a")
    second.settle()
    assert reason(table, "a") == "too_many_connections"
    first.leave()
    first.leave()
    enter(table, "a").leave()
    second.leave()
    assert len(table) == 0 and table.handshakes == 0


def test_the_sum_is_limited():
    table = AddressTable(handshakes_in_all=2)
    tickets = [enter(table, str(i)) for i in range(2)]
    assert reason(table, "x") == "too_many_handshakes"
    tickets[0].settle()
    enter(table, "x")


def test_who_is_refused_learns_whose_handshake_is_the_oldest_that_fills_the_limit():
    table, first, second, third = (
        AddressTable(handshakes=2, handshakes_in_all=3),
        Holder(),
        Holder(),
        Holder(),
    )
    oldest = enter(table, "a", first)
    enter(table, "b", second)
    enter(table, "b", third)
    assert refusal(table, "b").oldest is first, "of all"
    oldest.settle()
    assert refusal(table, "b").oldest is second, "of its address"
    assert refusal(full_of_connections(), "a").oldest is None, "connections do not go for others"


def test_no_limits():
    table = AddressTable()
    for _ in range(1000):
        enter(table, "a")
    assert len(table) == 1 and table.handshakes == 1000


@pytest.mark.parametrize(
    "address, network",
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", ""),
        ("no:address", "no:address"),
        ("[::1]", "[::1]"),
    ],
)
def test_what_counts_as_one_peer(address, network):
    assert network_of(address) == network


def test_hosts_of_one_64_share_a_limit():
    table = AddressTable(connections=1)
    enter(table, "2001:db8::1")
    assert reason(table, "2001:db8::2") == "too_many_connections"
    enter(table, "2001:db8:0:1::1")


STEPS = st.sampled_from(["settle", "leave", "enter", "step", "wait"])


@given(st.lists(st.tuples(st.integers(0, 3), STEPS), max_size=80))
def test_whatever_happens_the_table_is_empty_in_the_end(steps):
    table, tickets = AddressTable(connections=5, handshakes=3, handshakes_in_all=7), []
    now = NOW
    for who, what in steps:
        if what == "enter":
            try:
                tickets.append(enter(table, f"10.0.0.{who}", now=now))
            except TooMany:
                continue
        elif what == "wait":
            now += who
        elif tickets:
            ticket = tickets[who % len(tickets)]
            ticket.step(now) if what == "step" else getattr(ticket, what)()
        assert 0 <= table.handshakes <= 7 * CROWD_IN_ALL and len(table) <= 4
        since = [ticket.since for ticket in table._handshakes_in_all]
        assert since == sorted(since)
    for ticket in tickets:
        ticket.leave()
    assert len(table) == table.handshakes == len(table._handshakes) == 0

def test_a_crowd_that_comes_at_once_does_not_throw_itself_out():
    table = AddressTable(handshakes=64, handshakes_in_all=1024)
    tickets = [enter(table, "203.0.113.7", now=NOW + i * 0.002) for i in range(600)]
    assert table.handshakes == 600
    for ticket in tickets:
        ticket.settle()
    assert table.handshakes == 0


def test_one_that_takes_its_steps_outlasts_those_that_dribble():
    """They send bytes that complete nothing, and come again when they are hung up on."""
    table, now, hung_up = AddressTable(handshakes=8), NOW, 0
    client = enter(table, "a", now=now)
    for i in range(500):
        now += 0.05
        if i % 20 == 0:
            client.step(now)
        try:
            enter(table, "a", now=now)
        except TooMany as e:
            assert e.oldest is not client.holder
            hung_up += 1
            next(iter(table._handshakes["a"])).leave()
            enter(table, "a", now=now)
    assert client.holder is not None
    assert hung_up > 400
    assert table.handshakes <= 8 + PATIENCE_S / 0.05


def test_a_step_of_one_that_has_left_is_none():
    table = AddressTable()
    ticket = enter(table, "a")
    ticket.leave()
    ticket.step(LATE)
    assert (table.handshakes, ticket.since) == (0, NOW)


def test_even_a_quick_crowd_is_bounded():
    table = AddressTable(handshakes=2, handshakes_in_all=4)
    first = Holder()
    enter(table, "a", first)
    for _ in range(2 * CROWD - 1):
        if table.handshakes < 4 * CROWD_IN_ALL:
            enter(table, "a")
    assert refusal(table, "b", now=NOW).reason == "too_many_handshakes"
    here = AddressTable(handshakes=2)
    enter(here, "a", first)
    for _ in range(2 * CROWD - 1):
        enter(here, "a")
    full = refusal(here, "a", now=NOW)
    assert (full.reason, full.oldest) == ("too_many_handshakes_here", first)
    enter(here, "b")

