import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.addresses import AddressTable, TooMany, network_of


class Holder:
    def give_up(self, reason):
        pass


def enter(table, address, holder=None):
    return table.enter(address, holder or Holder())


def refusal(table, address):
    with pytest.raises(TooMany) as e:
        enter(table, address)
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
    for _ in range(1000):
        try:
            enter(table, "203.0.113.7")
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


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["settle", "leave", "enter"])), max_size=80))
def test_whatever_happens_the_table_is_empty_in_the_end(steps):
    table, tickets = AddressTable(connections=5, handshakes=3, handshakes_in_all=7), []
    for who, what in steps:
        if what == "enter":
            try:
                tickets.append(enter(table, f"10.0.0.{who}"))
            except TooMany:
                continue
        elif tickets:
            getattr(tickets[who % len(tickets)], what)()
        assert 0 <= table.handshakes <= 7 and len(table) <= 4
    for ticket in tickets:
        ticket.leave()
    assert len(table) == table.handshakes == len(table._handshakes) == 0
