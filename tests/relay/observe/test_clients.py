import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.observe.clients import (
    MAX_LIMIT,
    Query,
    describe,
    find_clients,
    join_clients,
    parse_query,
    remote_of,
)
from tests.relay.clients import Room, key_of

OFFSET = 1_790_000_000.0 - 1000.0
NS = 1_000_000_000


@pytest.fixture
def room():
    room = Room()
    room.join(3, "203.0.113.7", 1003, app="tailcat")
    room.now += 60
    room.join(1, "2001:db8::7", 1001)
    room.now += 60
    room.join(2, "203.0.113.70", 1002, app="other", prober=True)
    room.join(2, "198.51.100.1", 1005)
    return room


def page(room, text):
    query = parse_query(text, room.now + OFFSET)
    return join_clients(query, [find_clients(query, room.switch.sessions, room.now, OFFSET)])


def serials(room, text):
    return [client["connNum"] for client in page(room, text).clients]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("all", [2, 3, 4, 1]),
        ("all=1&sort=conn", [1, 2, 3, 4]),
        ("all&sort=-conn", [4, 3, 2, 1]),
        ("all&sort=ip", [4, 1, 3, 2]),
        ("all&sort=connected", [1, 2, 3, 4]),
        ("all&sort=-connected", [4, 3, 2, 1]),
        ("ip=203.0.113.7", [1]),
        ("ip=::ffff:203.0.113.7", [1]),
        ("cidr=203.0.113.77/24", [3, 1]),
        ("cidr=2001:db8::/32", [2]),
        (f"key=nodekey:{key_of(2).hex()}", [3, 4]),
        (f"key={key_of(9).hex()}", []),
        ("app=tailcat", [1]),
        ("app=tailcat&app=other", [3, 1]),
        ("app=", [2, 4]),
        ("cidr=203.0.113.0/24&app=other", [3]),
        ("all&sort=conn&limit=2", [1, 2]),
        ("all&sort=conn&after=2", [3, 4]),
        ("all&sort=-conn&after=3", [2, 1]),
        (f"all&after={key_of(2).hex()}", [1]),
        (f"all&after={key_of(2).hex()}&afterconn=3", [4, 1]),
        (f"all&sort=-key&after={key_of(2).hex()}&afterconn=4", [3, 2]),
        ("all&sort=ip&after=203.0.113.7:1003&afterconn=1", [3, 2]),
        ("all&sort=ip&after=203.0.113.7", [3, 2]),
        ("all&sort=-ip&after=203.0.113.7", [4]),
        ("all&sort=ip&after=[2001:db8::7]:1000", [2]),
        ("all&sort=connected&after=90s", [2, 3, 4]),
        ("all&sort=rx&after=0", []),
    ],
)
def test_filters_orders_and_places(room, text, expected):
    assert serials(room, text) == expected


def test_traffic_orders(room):
    sessions = {session.serial: session for session in room.switch.sessions}
    room.say(sessions[1], 1, b"x" * 1000)
    for _ in range(3):
        room.say(sessions[2], 3, b"y" * 10)
    assert serials(room, "all&sort=-rx")[:2] == [1, 2] and serials(room, "all&sort=-rxpkts")[:2] == [2, 1]
    assert serials(room, "all&sort=-tx")[:2] == [2, 1] and serials(room, "all&sort=-txpkts")[:2] == [1, 2]
    assert serials(room, "all&sort=-rx&limit=1&after=30&afterconn=2") == [4]


def test_the_fields_are_derpers(room):
    (client,) = page(room, "app=tailcat&format=json").clients
    assert client == {
        "connNum": 1, "key": f"nodekey:{key_of(3).hex()}", "remote": "203.0.113.7:1003",
        "connectedAt": "2026-09-21T14:13:20Z", "connected": 120 * NS, "active": True, "dup": False,
        "disabled": False, "home": False, "meshPeer": False, "notIdeal": False, "prober": False,
        "version": 2, "appName": "tailcat", "rxPkts": 0, "rxBytes": 0, "txPkts": 0, "txBytes": 0,
        "senders": 0,
    }  # fmt: skip
    older, newer = page(room, f"key={key_of(2).hex()}").clients
    assert (older["dup"], older["active"], older["prober"]) == (True, False, True) and newer["active"]
    json.dumps(client)


@pytest.mark.parametrize(
    "sort",
    [
        "key", "-key", "ip", "-ip", "conn", "-conn", "connected", "-connected", "rx", "-tx", "rxpkts",
        "-txpkts",
    ],
)
def test_the_next_links_walk_over_every_connection_once(sort):
    room = Room()
    for number in range(50):
        session = room.join(number % 20, f"203.0.113.{number % 7}", 1000 + number % 3, app="a b&c")
        if number % 5 == 0:
            room.now += 0.1
        if number % 4 == 0:
            room.say(session, number % 20, b"z" * (number % 3))
    text, seen, left = f"app=a+b%26c&sort={sort}&limit=7&format=json", [], 50
    while text:
        query = parse_query(text, room.now + OFFSET)
        listing = join_clients(query, [find_clients(query, room.switch.sessions, room.now, OFFSET)])
        seen += [client["connNum"] for client in listing.clients]
        left -= len(listing.clients)
        assert (listing.connections, listing.keys, listing.remaining) == (50, 20, left)
        document = listing.to_json(query)
        assert ("next" in document) is (left > 0) and document["query"] == "all clients with app a b&c"
        text = listing.next.removeprefix("?")
    assert sorted(seen) == list(range(1, 51))


@pytest.mark.parametrize(
    "text, words",
    [
        ("all", "all clients"),
        ("ip=203.0.113.7", "clients from 203.0.113.7"),
        ("cidr=203.0.113.7/24", "clients from 203.0.113.0/24"),
        (f"key={key_of(2).hex()}&app=", f"connections for nodekey:{key_of(2).hex()} with app (none)"),
        ("app=a&app=b", "all clients with app a or b"),
    ],
)
def test_the_query_in_words_and_its_link(text, words):
    query = parse_query(text, 0)
    assert str(query) == words
    assert parse_query(query.link(query.sort).removeprefix("?"), 0) == query


@pytest.mark.parametrize("text", ["", "sort=ip", "ip=&cidr=&key=", "format=json", "limit=3"])
def test_without_a_filter_it_is_the_index(text):
    assert parse_query(text, 0) is None


@pytest.mark.parametrize(
    "text, says",
    [
        ("all&format=xml", 'bad format "xml"; want json or html'),
        ("all&ip=1.1.1.1", "only one of all, ip, cidr, or key may be given"),
        ("ip=1.1.1.300", 'bad ip "1.1.1.300"'),
        ("cidr=1.1.1.1", 'bad cidr "1.1.1.1"'),
        ("cidr=1.1.1.1/40", "bad cidr"),
        ("key=nodekey:00", 'bad key "nodekey:00": has 2 hex digits, not 64'),
        ("all&sort=age", 'bad sort "age"; want key'),
        ("all&limit=0", 'bad limit "0"'),
        ("all&limit=-5", "bad limit"),
        ("all&limit=x", "bad limit"),
        ("all&after=zz", 'bad after "zz": has 2 hex'),
        ("all&sort=ip&after=zz", 'bad after "zz" for sort by ip'),
        ("all&sort=ip&after=1.1.1.1:x", "for sort by ip"),
        ("all&sort=connected&after=soon", "want Unix nanoseconds or a duration"),
        ("all&sort=conn&after=x", 'bad after "x"'),
        ("all&sort=rx&after=" + "9" * 21, "bad after"),
        (f"all&after={key_of(1).hex()}&afterconn=x", 'bad afterconn "x"'),
    ],
)
def test_bad_queries_get_a_sentence(text, says):
    with pytest.raises(ValueError) as e:
        parse_query(text, 0)
    assert says in str(e.value)


def test_limits_are_capped_and_stray_fields_ignored():
    assert parse_query("all&limit=99999", 0).limit == MAX_LIMIT
    assert parse_query("all&afterconn=x&nonsense=1", 0) == Query()
    assert "limit=5" in parse_query("all&limit=5", 0).link("key")
    assert parse_query(f"all&sort=connected&after={NS}", 0).after == NS


def test_a_client_of_unknown_address():
    room = Room()
    session = room.join(1, None)
    assert (
        remote_of(session) == ""
        and serials(room, "all&sort=ip") == [1]
        and serials(room, "cidr=0.0.0.0/0") == []
    )
    assert describe(session, OFFSET, room.now)["remote"] == ""


@given(st.text(max_size=200))
def test_any_query_is_parsed_or_refused(text):
    try:
        query = parse_query(text, 0.0)
    except ValueError:
        return
    if query:
        room = Room()
        room.join(1)
        join_clients(query, [find_clients(query, room.switch.sessions, room.now, OFFSET)])
