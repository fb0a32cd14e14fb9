import json
from operator import attrgetter

import pytest

from relay.core.counts import Counts
from relay.core.outbox import Outbox
from relay.core.peer import MeshLink
from relay.core.reasons import Breach, Refusal
from relay.core.stats import Rates, Stats, Tally, merge, snapshot
from relay.core.wire import PeerPresent
from tests.relay.clients import Room, key_of


def link(room, name, *, sibling=False):
    made = MeshLink(name, Outbox(room.switch.dirty, room.switch.drop, None, mesh=True), sibling=sibling)
    room.switch.add_link(made)
    return made


def test_a_snapshot_of_a_room():
    room = Room()
    a, b = room.join(1, not_ideal=True), room.join(2)
    room.join(2)
    a.home = True
    room.say(a, 2, b"x" * 100)
    room.say(b, 9, b"lost")
    tally = Tally()
    room.switch.counts.accepts += 3
    tally.refusals.add(Refusal.WEBSOCKET_CLOSED, 1001)
    tally.refusals.add(Breach.BAD_BOX)
    tally.note_queue_time(0.010)
    problems, stun = room.switch.consistency_check(), {"stun_requests": {"success": 2}}
    stats = snapshot(room.switch, tally, {"current_file_descriptors": 7}, problems, stun)
    assert (
        stats.counters.packets_received == 2
        and stats.counters.packets_sent == 1
        and stats.counters.accepts == 3
    )
    assert stats.counters.bytes_received == 104 and stats.counters.bytes_sent == 100
    assert stats.labelled == {
        "packets_received_kind": {"disco": 0, "other": 2},
        "refusals": {"websocket_closed_1001": 1, "bad_box": 1},
        "stun_requests": {"success": 2},
    }
    assert stats.dropped_packets["unknown_dest/other"] == 1 and stats.dropped_bytes["unknown_dest/other"] == 4
    assert stats.gauges == {
        "current_connections": 3, "current_home_connections": 1, "current_notideal_connections": 1,
        "clients_local": 2, "clients_remote": 0, "watchers": 0, "current_dup_client_keys": 1,
        "current_dup_client_conns": 2, "mesh_links": 0, "packets_waiting": 0,
        "average_queue_duration_ms": 1.0, "current_file_descriptors": 7,
    }  # fmt: skip
    assert stats.problems == [] and Stats.from_json(json.loads(json.dumps(stats.to_json()))) == stats


def test_another_workers_clients_are_not_remote():
    room = Room()
    sibling, foreign = link(room, "worker 1", sibling=True), link(room, "fra2")
    for number, by in ((1, sibling), (2, foreign), (3, foreign), (3, sibling)):
        room.switch.announce(by, PeerPresent(key_of(number)))
    gauges = snapshot(room.switch, Tally(), {}, []).gauges
    assert gauges["clients_remote"] == 1 and gauges["clients_local"] == 0 and gauges["mesh_links"] == 1


def test_workers_add_up_but_what_each_sees_alike_counts_once():
    part = Stats(
        Counts(accepts=2),
        {"closes": {"eof": 1}},
        {"x/other": 1},
        {"x/other": 9},
        {"clients_local": 2, "clients_remote": 5, "front_ok": 1},
        ["odd"],
    )
    other = Stats(
        Counts(accepts=3, got_ping=1),
        {"closes": {"eof": 1, "idle": 4}},
        {},
        {},
        {"clients_local": 1, "clients_remote": 5, "front_ok": 0},
    )
    both = merge([part, other])
    assert both == Stats(
        Counts(accepts=5, got_ping=1), {"closes": {"eof": 2, "idle": 4}}, {"x/other": 1}, {"x/other": 9},
        {"clients_local": 3, "clients_remote": 5, "front_ok": 0}, ["odd"], 2,
    )  # fmt: skip
    assert merge([]).workers == 0


@pytest.mark.parametrize(
    "rtt_us, bucket",
    [(-1, "non-tcp"), (0, "10ms"), (9_999, "10ms"), (10_000, "20ms"), (499_999, "500ms"), (500_000, "inf")],
)
def test_round_trip_buckets(rtt_us, bucket):
    tally = Tally()
    tally.note_rtt(rtt_us)
    assert tally.labelled() == {"tcp_rtt": {bucket: 1}}


def test_rates():
    accepts, pings = attrgetter("accepts"), attrgetter("got_ping")
    rates = Rates()
    assert rates.per_second(accepts, 5) == 0
    rates.note(0.0, Counts())
    assert rates.per_second(accepts, 5) == 0
    for second in range(5, 105, 5):
        rates.note(float(second), Counts(accepts=second * 10 if second <= 60 else 600))
    assert rates.per_second(accepts, 60) == pytest.approx(200 / 60), "20 of the last 60 seconds had any"
    assert rates.per_second(accepts, 5) == 0 and rates.per_second(pings, 5) == 0
    assert rates.per_second(accepts, 1) == 0, "samples are further apart: the last two"
    assert len(rates._samples) <= 14
    still = Rates()
    still.note(1.0, Counts(accepts=1))
    still.note(1.0, Counts(accepts=2))
    assert still.per_second(accepts, 5) == 0
