import asyncio
import json

import pytest

from relay import __version__
from relay.core.counts import Labelled
from relay.core.outbox import Outbox
from relay.core.peer import MeshLink
from relay.core.stats import Rates, Tally, snapshot
from relay.core.wire import PeerPresent
from relay.http.http11 import Request
from relay.http.proxy_header import TrustedProxies
from relay.observe.pages import Inside, make_pages, make_parts, may_debug
from tests.relay.clients import Room, key_of

KEY = f"nodekey:{key_of(1).hex()}"


BROWSER = ((b"accept", b"text/html,*/*"),)


def request(target, *, peer="127.0.0.1", headers=()):
    return Request("GET", target, (*headers, *BROWSER), peer, peer)


class House:
    """A room with its debug pages; `get` gives status and text, or the JSON document."""

    def __init__(self, **options):
        self.room = Room()
        self.tally = Tally()
        self.inside = Inside(
            self.room.switch,
            lambda: snapshot(self.room.switch, self.tally, {}, self.room.switch.consistency_check()),
            Rates(),
            100.0,
            {"TLS host name": "derp.example"},
        )
        self.pages = make_pages(self.inside, **options)

    def get(self, target, **more):
        path = target.partition("?")[0]
        name = (
            path
            if path in self.pages
            else next(p for p in self.pages if p.endswith("/") and path.startswith(p))
        )
        response = self.pages[name](request(target, **more))
        types = dict(response.headers).get("Content-Type", "")
        return response.status, json.loads(response.body) if "json" in types else response.body.decode()


@pytest.fixture
def house():
    return House()


@pytest.mark.parametrize(
    "peer, headers, allowed",
    [
        ("127.0.0.1", [], True),
        ("127.8.9.1", [], True),
        ("::1", [], True),
        ("::ffff:127.0.0.1", [], True),
        ("203.0.113.7", [], False),
        ("fe80::1%eth0", [], False),
        ("", [], False),
        ("127.0.0.1", [(b"x-forwarded-for", b"127.0.0.1")], False),
        ("127.0.0.1", [(b"forwarded", b"for=127.0.0.1")], False),
    ],
)
def test_loopback_only_and_never_through_a_proxy(house, peer, headers, allowed):
    assert may_debug(request("/debug/", peer=peer, headers=headers)) is allowed
    for path in house.pages:
        status, body = house.get(path, peer=peer, headers=headers)
        assert (status == 403) is not allowed
        assert allowed or body == "debug access denied\n"


def test_a_listener_of_its_own_is_permission_enough():
    assert House(anyone=True).get("/metrics", peer="10.0.0.5")[0] == 200


def test_what_a_proxy_on_loopback_passes_on_is_a_strangers():
    house = House(proxies=TrustedProxies(["127.0.0.1"]))
    assert house.get("/metrics")[0] == 403 and house.get("/metrics", peer="::1")[0] == 200


def test_every_page_of_a_relay_without_clients(house):
    for path in house.pages:
        status, _ = house.get(path)
        assert status == (302 if path in ("/debug", "/debug/clients") else 200)
    assert house.get("/debug/nonsense")[0] == 404
    assert house.get("/debug")[0] == 302


def test_the_index_shows_rates_drops_and_links(house):
    a = house.room.join(1)
    house.inside.rates.note(0.0, house.room.switch.totals())
    house.room.say(a, 9, b"lost")
    house.inside.rates.note(5.0, house.room.switch.totals())
    house.room.now += 100
    house.tally.closes = Labelled(["<eof>"])
    house.tally.closes.add("<eof>")
    house.room.switch.add_link(MeshLink("fra2.example", Outbox([], house.room.switch.drop, None, mesh=True)))
    _, text = house.get("/debug/")
    for expected in (
        __version__, "derp.example", "unknown_dest/other", '<td>packets in</td><td class="n">0.2</td>',
        "fra2.example", "&lt;eof&gt;", "1m40s",
    ):
        assert expected in text, expected
    assert "bad" not in text.split("</style>")[1]


def test_what_is_inconsistent_is_shown(house):
    house.room.join(1).outbox.current = False
    assert house.get("/debug/check") == (500, f"{key_of(1).hex()} has a wrong active connection\n")
    assert 'class="bad"' in house.get("/debug/")[1]


def test_check_has_derpers_sentence(house):
    assert house.get("/debug/check") == (200, "derp.Server ConsistencyCheck okay")


def test_metrics_and_vars(house):
    house.room.join(1)
    assert "derp_current_connections 1" in house.get("/metrics")[1].splitlines()
    assert house.get("/debug/varz")[1].startswith("# HELP version")
    assert house.get("/debug/vars")[1]["gauges"]["current_connections"] == 1


def test_clients(house):
    house.room.join(1, app="<script>", not_ideal=True)
    house.room.join(1, "2001:db8::7")
    assert house.get("/debug/clients/?format=json") == (200, {"conns": 2, "keys": 1})
    assert "2 connections for 1 node keys" in house.get("/debug/clients/")[1]
    status, document = house.get("/debug/clients/?all&limit=1&format=json")
    assert status == 200 and list(document) == ["query", "conns", "keys", "remaining", "next", "clients"]
    _, text = house.get("/debug/clients/?all&limit=1&sort=-rx")
    assert (
        "Next page" in text
        and "(1 more)" in text
        and "rx bytes</a> ▼" in text
        and "<script>" not in text.split("</style>")[1]
    )
    _, text = house.get("/debug/clients/?all")
    assert (
        "&lt;script&gt;" in text
        and "notideal dup<" in text
        and "dup-active" in text
        and "node key</a> ▲" in text
    )
    assert house.get("/debug/clients/?all&sort=no")[0] == 400


def test_one_peers_traffic(house):
    room = house.room
    a, b = room.join(1), room.join(2)
    room.say(a, 2, b"x" * 50)
    room.say(b, 1, b"y" * 70)
    room.say(a, 9, b"lost")
    room.now += 2.5
    status, document = house.get(f"/debug/traffic?key={KEY}&format=json")
    assert status == 200
    assert (
        document["known"]
        and document["received_bytes"] == 54
        and document["sent_bytes"] == 70
        and document["dropped"] == 1
    )
    assert (
        document["heard_from"] == document["sent_to"] == [f"nodekey:{key_of(2).hex()}"]
        and document["since_s"] == 2.5
    )
    assert document["connections"][0]["rxPkts"] == 2
    room.now += 1
    again = house.get(f"/debug/traffic?key={KEY}&format=json")[1]
    assert (again["received_bytes"], again["sent_bytes"], again["since_s"]) == (0, 0, 1.0), (
        "since the last look"
    )
    _, text = house.get(f"/debug/traffic?key={KEY}")
    assert "got packets from" in text and key_of(2).hex() in text


def test_a_peer_of_another_relay_and_one_of_none(house):
    link = MeshLink("fra2", Outbox([], house.room.switch.drop, None, mesh=True))
    house.room.switch.announce(link, PeerPresent(key_of(1)))
    assert house.get(f"/debug/traffic?key={key_of(1).hex()}&format=json")[1]["links"] == ["fra2"]
    unknown = house.get(f"/debug/traffic?key={key_of(7).hex()}&format=json")[1]
    assert not unknown["known"] and unknown["connections"] == []
    assert house.get("/debug/traffic?key=nodekey:12") == (400, "bad key: has 2 hex digits, not 64\n")


def test_the_busiest(house):
    room = house.room
    a, b = room.join(1), room.join(2)
    room.join(3)
    room.say(a, 2, b"x" * 50)
    room.say(b, 1, b"y" * 70)
    document = house.get("/debug/traffic?format=json")[1]
    assert document["connections"] == 2
    assert document["busiest"][0] == {
        "Key": f"nodekey:{key_of(1).hex()}",
        "Recv": 50,
        "Sent": 70,
        "UniqueSenders": 1,
    }
    room.say(a, 2, b"x")
    assert [row["Recv"] for row in house.get("/debug/traffic?format=json")[1]["busiest"]] == [1, 0]
    assert "node key" in house.get("/debug/traffic")[1]


def house_of_two(answers=True):
    """Make one worker's pages, and another worker that answers it, or does not."""
    one, other = House(), House()

    async def ask(target):
        response = make_parts(other.inside)[target.partition("?")[0]](request(target))
        return [json.loads(response.body)] if answers else []

    one.inside.ask_others = ask
    return one, other


def joined(house, target, **more):
    """Return the page that the parts of all workers make."""
    return asyncio.run(house.pages[target.partition("?")[0]](request(target, **more)))


def test_two_workers_are_one_relay():
    one, other = house_of_two()
    for room in (one.room, other.room):
        room.say(room.join(1), 2, b"lost")
    other.room.join(2).outbox.current = False
    assert joined(one, "/debug/check").status == 500
    assert json.loads(joined(one, "/debug/clients/?format=json").body) == {"conns": 3, "keys": 3}
    busiest = json.loads(joined(one, "/debug/traffic?format=json").body)
    assert busiest["connections"] == 2 and [row["Recv"] for row in busiest["busiest"]] == [4, 4]
    peer = json.loads(joined(one, f"/debug/traffic?key={KEY}&format=json").body)
    assert peer["known"] and peer["dropped"] == 2 and len(peer["connections"]) == 2
    assert one.pages["/debug/clients/"](request("/debug/clients/?all&sort=no")).status == 400


def test_a_worker_that_does_not_answer_is_left_out():
    one, other = house_of_two(answers=False)
    other.room.join(1)
    assert json.loads(joined(one, "/debug/clients/?format=json").body) == {"conns": 0, "keys": 0}
    assert joined(one, "/debug/check").status == 200


@pytest.mark.parametrize("key", ["", key_of(1).hex()])
def test_traffic_streams_what_moved_since_the_round_before(monkeypatch, key):
    monkeypatch.setattr("relay.observe.pages.STREAM_EVERY_S", 0)
    one, other = house_of_two()
    here, there = one.room.join(1), other.room.join(1)
    one.room.say(here, 9, b"before the stream")

    async def read():
        response = await one.pages["/debug/traffic"](
            Request("GET", f"/debug/traffic?key={key}", (), "127.0.0.1", "127.0.0.1")
        )
        lines = [await response.body.__anext__()]
        one.room.say(here, 9, b"12345")
        other.room.say(there, 9, b"123")
        lines += [await response.body.__anext__() for _ in range(2)]
        await response.body.aclose()
        return lines

    quiet, busy, after = asyncio.run(read())
    assert quiet == after == b""
    assert sorted(json.loads(line)["Recv"] for line in busy.splitlines()) == ([8] if key else [3, 5])


def test_a_stream_of_a_bad_key(house):
    answer = house.pages["/debug/traffic"](
        Request("GET", "/debug/traffic?key=12", (), "127.0.0.1", "127.0.0.1")
    )
    assert (answer.status, answer.body) == (400, b"bad key: has 2 hex digits, not 64\n")


def test_pages_keep_browsers_from_doing_anything_else(house):
    headers = dict(house.pages["/debug/"](request("/debug/")).headers)
    assert (
        headers["X-Frame-Options"] == "DENY"
        and "style-src 'self' 'unsafe-inline'" in headers["Content-Security-Policy"]
    )
