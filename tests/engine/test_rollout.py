"""Properties of a rollout, over simulated fleets with faults; P1 to P12 are those of its design."""

from __future__ import annotations

from copy import deepcopy
from itertools import permutations, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.rollout.machine import FAILED, STUCK, actions, begin, begin_back, exit_code, step
from engine.rollout.state import (
    BUSY,
    ActionKind,
    EventKind,
    HostState,
    Rollout,
    RolloutAction,
    RolloutEvent,
    RolloutHost,
)
from engine.rollout.waves import grouped
from inventory.rollout import RolloutHooks, RolloutPolicy
from tests.engine.simulated import HALF, NEW, OLD, Killed, SimulatedHost, World, world_of

MANY = settings(max_examples=300, deadline=None)
SOME = settings(max_examples=100, deadline=None)
LASTING = [None] * 3 + [EventKind.UNDONE, EventKind.STILL_BROKEN, EventKind.STUCK, EventKind.SKIPPED]
PASSING = [EventKind.LOST, EventKind.INCONCLUSIVE, EventKind.OVERTAKEN]


def hosts(faults: list[EventKind | None], most: int = 12) -> st.SearchStrategy[list[SimulatedHost]]:
    one = st.builds(
        SimulatedHost,
        clients=st.integers(0, 50),
        like=st.sampled_from("abc"),
        near=st.sampled_from(["", "h0", "h1", "h2", "h3"]),
        changes=st.sampled_from([0, 1, 3]),
        generation=st.sampled_from([0, 1, 7]),
        moves=st.booleans(),
        fault=st.sampled_from(faults),
    )
    return st.lists(one, min_size=1, max_size=most)


POLICIES = st.builds(
    RolloutPolicy,
    waves=st.sampled_from([("10%", "50%", "rest"), ("1",), ("rest",), ("2", "30%")]),
    budget=st.integers(0, 3),
    on_failure=st.sampled_from(["stop", "wave", "all"]),
    at_once=st.integers(1, 4),
    soak_s=st.sampled_from([0, 60]),
    hooks=st.sampled_from([RolloutHooks(), RolloutHooks(before_wave=("./ask",))]),
)
WORLDS = st.builds(
    world_of,
    hosts(LASTING + PASSING),
    POLICIES,
    soak_fails=st.sets(st.sampled_from(["h0", "h1", "h2"])).map(frozenset),
    pauses=st.booleans(),
    needs_two=st.booleans(),
)


def steady(rollout: Rollout) -> dict[str, HostState]:
    return {name: host.state for name, host in rollout.hosts.items()}


@MANY
@given(WORLDS)
def test_what_holds_in_every_state(world: World) -> None:
    check_every_state(world)


@pytest.mark.parametrize("seed", range(4))
def test_the_same_holds_for_two_hundred_hosts(seed: int) -> None:
    dice = Random(seed)
    faults = [None] * 60 + LASTING + PASSING
    fleet = [
        SimulatedHost(
            clients=dice.randrange(300),
            like=dice.choice("abc"),
            near=f"h{dice.randrange(200)}",
            moves=dice.random() < 0.2,
            fault=dice.choice(faults),
        )
        for _ in range(200)
    ]
    policy = RolloutPolicy(budget=dice.choice([0, 20]), at_once=dice.choice([1, 8]))
    check_every_state(world_of(fleet, policy))


def check_every_state(world: World) -> None:
    end = world.to_the_end()
    moments = zip(world.states, world.states[1:], world.blamed[1:], strict=False)
    for before, after, blamed in moments:
        check_busy(after)
        begun = set(after.names(HostState.CUTTING)) - set(before.names(HostState.CUTTING))
        if begun:
            assert len(blamed) <= after.policy.budget and not after.aborted  # P3
            assert not after.policy.hooks.before_wave or after.allowed == after.wave
            assert not after.names(HostState.CHOSEN, HostState.UNPREPARED)
        for name in begun:
            wave = after.hosts[name].wave
            assert not any(0 < host.wave < wave for host in after.hosts.values() if is_open(host))
        assert exit_code(after) == code_of(after, blamed)  # P9
    assert end.names(*BUSY) == [] and actions(end) == ()  # P4
    assert not any(host.truth == HALF for host in world.hosts.values())
    check_the_end(world, end)


def check_busy(rollout: Rollout) -> None:
    busy = rollout.names(*BUSY)
    assert len(busy) <= rollout.policy.at_once  # P1
    serving = {name for name, host in rollout.hosts.items() if serves(host)}
    if len(serving) >= 2:
        assert serving - set(busy)  # P8
    for one, other in permutations(busy, 2):
        near = rollout.hosts[one].near == other and rollout.hosts[other].near == one
        assert not near  # P12


def serves(host: RolloutHost) -> bool:
    """Whether nodes have that relay while it is not being cut over. Its own proof says the rest."""
    nobody_knows = (HostState.CHOSEN, HostState.SKIPPED, HostState.UNPREPARED)
    return bool(host.generation or host.confirmed) and host.state not in (*nobody_knows, HostState.STUCK)


def is_open(host: RolloutHost) -> bool:
    """Whether its wave has still to do with that host. A deferred one enters the map later."""
    new = host.state is HostState.CONFIRMED and not host.registered and not host.deferred
    return new or host.state in (HostState.WAITING, *BUSY)


def code_of(rollout: Rollout, blamed: frozenset[str]) -> int:
    """Return the exit code that these states and failures have by the table of the design."""
    if rollout.names(HostState.STUCK):
        return 8
    if not rollout.ended:
        return 6
    if rollout.names(HostState.UNPREPARED) and not rollout.waves:
        return 3
    return 7 if len(blamed) > rollout.policy.budget else 1 if blamed else 0


def check_the_end(world: World, end: Rollout) -> None:
    """Check that the hosts are as the rollout says, and that its exit code is true of them."""
    for name in end.names(HostState.CONFIRMED):
        host = world.hosts[name]
        assert host.truth == NEW and (host.proved or host.fault is EventKind.STILL_BROKEN)  # P2
        assert end.hosts[name].registered and name not in world.blamed[-1]
    for name in set(end.hosts) - set(end.names(HostState.CONFIRMED, HostState.STUCK)):
        assert world.hosts[name].truth == world.hosts[name].in_map == OLD
    code, stuck = exit_code(end), end.names(HostState.STUCK)
    assert (code == 8) == bool(stuck)
    if code == 0:
        assert set(end.names(*HostState)) == set(
            end.names(HostState.CONFIRMED, HostState.IDLE, HostState.SKIPPED)
        )


def is_between(host: RolloutHost) -> bool:
    """Whether the map still has a place of it where it is no more."""
    return host.moves and not host.registered


def test_a_mover_is_in_the_map_before_the_next_host_is_begun() -> None:
    policy = RolloutPolicy(waves=("rest",), at_once=3, soak_s=0)
    world = world_of([SimulatedHost(clients=1 + number) for number in range(5)], policy)
    world.hosts["h1"].moves = True
    assert exit_code(world.to_the_end()) == 0
    kinds = [(event.kind, event.host or event.hosts) for event in world.ledger]
    at = kinds.index((EventKind.CONFIRMED, "h1"))
    assert kinds[at + 1] == (EventKind.REGISTERED, ("h1",))
    moving = [state for state in world.states if state.hosts["h1"].state is HostState.CUTTING]
    assert moving and all(state.names(*BUSY) == ["h1"] for state in moving)


def test_a_host_that_another_run_has_changed_is_prepared_again_once() -> None:
    rollout = begun(RolloutPolicy(), prepared("a", 1), prepared("b", 2))
    overtaken = RolloutEvent(kind=EventKind.OVERTAKEN, host="a", why="a: at generation 4")
    again = step(rollout, overtaken)
    assert (again.names(HostState.CHOSEN), again.paused, again.names(HostState.CUTTING)) == (["a"], "", [])
    again = step(again, prepared("a", 1, generation=4))
    assert (again.names(HostState.CUTTING), again.wave) == (["a"], 1)
    assert step(again, overtaken).paused == "a: at generation 4"
    assert step(again, overtaken).failures == 0


def test_a_confirmed_host_that_another_plan_changes_waits_for_a_new_wave() -> None:
    rollout = begun(RolloutPolicy(), prepared("a", 1), prepared("b", 2))
    rollout = step(rollout, RolloutEvent(kind=EventKind.CONFIRMED, host="a"))
    rollout = step(rollout, RolloutEvent(kind=EventKind.PAUSED, why="our own line"))
    rollout = step(rollout, RolloutEvent(kind=EventKind.RESUMED))
    assert rollout.names(HostState.CHOSEN) == ["a", "b"]
    same = step(rollout, prepared("a", 1, changes=0, generation=2))
    assert (same.names(HostState.CONFIRMED), same.hosts["a"].generation) == (["a"], 1)
    assert actions(step(same, prepared("b", 2)))[0].hosts == ("a",)  # it was not watched yet
    other = step(step(rollout, prepared("a", 1, generation=2)), prepared("b", 2))
    assert (other.hosts["a"].state, other.hosts["a"].wave, other.waves) == (HostState.WAITING, 3, 3)
    aborted = step(rollout, RolloutEvent(kind=EventKind.ABORTED))
    assert aborted.names(HostState.CONFIRMED) == ["a"]


def test_the_clients_that_were_cut_are_added_up() -> None:
    rollout = begun(RolloutPolicy(), prepared("a", 1), prepared("b", 2))
    for kind, cut, gap_s in ((EventKind.CONFIRMED, 9, 1.5), (EventKind.UNDONE, 7, 1.0)):
        rollout = step(rollout, RolloutEvent(kind=kind, host="a", cut=cut, gap_s=gap_s))
    assert (rollout.hosts["a"].cut, rollout.hosts["a"].gap_s) == (16, 1.5)


@pytest.mark.parametrize(("others", "paused"), [(["b"], "paste it"), ([], "")])
def test_a_wave_that_a_person_has_to_register_pauses_the_next_one(others: list[str], paused: str) -> None:
    names = ["a", *others]
    rollout = begun(RolloutPolicy(soak_s=0, canary=("a",)), *(prepared(name, 1) for name in names))
    rollout = step(rollout, RolloutEvent(kind=EventKind.CONFIRMED, host="a"))
    rollout = step(rollout, RolloutEvent(kind=EventKind.REGISTERED, hosts=("a",), why="paste it"))
    assert (rollout.paused, rollout.ended) == (paused, not paused)


def test_regions_that_are_left_alone_are_compared_once_at_the_end() -> None:
    policy = RolloutPolicy(soak_s=0)
    rollout = begun(policy, prepared("a", 1), prepared("b", 2, changes=0))
    rollout = step(rollout, RolloutEvent(kind=EventKind.CONFIRMED, host="a"))
    rollout = step(rollout, RolloutEvent(kind=EventKind.REGISTERED, hosts=("a",)))
    assert actions(rollout) == (RolloutAction(kind=ActionKind.COMPARE, hosts=("b",)),)
    assert step(rollout, RolloutEvent(kind=EventKind.REGISTERED, hosts=("b",))).ended
    paused = step(rollout, RolloutEvent(kind=EventKind.PAUSED, why="headscale does not answer"))
    again = step(step(paused, RolloutEvent(kind=EventKind.RESUMED)), prepared("a", 1, changes=0))
    again = step(again, prepared("b", 2, changes=0))
    assert actions(again) == (RolloutAction(kind=ActionKind.COMPARE, hosts=("b",)),)
    assert step(rollout, RolloutEvent(kind=EventKind.ABORTED)).ended
    failed = step(begun(policy, prepared("a", 1), prepared("b", 2, changes=0)), UNDONE_A)
    assert (failed.ended, exit_code(failed)) == (True, FAILED)


UNDONE_A = RolloutEvent(kind=EventKind.UNDONE, host="a")


def test_a_region_that_the_map_does_not_take_alone_enters_it_with_the_next_wave() -> None:
    rollout = begun(RolloutPolicy(soak_s=0, waves=("1", "rest")), *map(prepared, "abc", (1, 2, 3)))
    rollout = step(rollout, RolloutEvent(kind=EventKind.CONFIRMED, host="a"))
    rollout = step(rollout, RolloutEvent(kind=EventKind.DEFERRED, hosts=("a",), why="too few"))
    assert (rollout.wave, rollout.names(HostState.CUTTING), rollout.paused) == (2, ["b"], "")
    both = step(rollout, RolloutEvent(kind=EventKind.CONFIRMED, host="b"))
    assert actions(both) == (RolloutAction(kind=ActionKind.REGISTER, hosts=("a", "b")),)
    alone = step(rollout, RolloutEvent(kind=EventKind.STUCK, host="b"))
    assert actions(alone) == (RolloutAction(kind=ActionKind.REGISTER, hosts=("a",)),)
    assert step(alone, RolloutEvent(kind=EventKind.DEFERRED, hosts=("a",), why="too few")).paused == "too few"


@SOME
@given(hosts([None], most=6), st.integers(0, 12), st.booleans())
def test_a_whole_rollout_goes_back_newest_first(
    fleet: list[SimulatedHost], line: int, dies_armed: bool
) -> None:
    """From every prefix of its ledger, one host at a time, and the map with it."""
    world = world_of(fleet, RolloutPolicy(at_once=4), goes_back=True, kill_at=line, dies_armed=dies_armed)
    for host in world.hosts.values():
        host.truth = host.in_map = NEW
    end = world.to_the_end()
    assert (set(steady(end).values()), exit_code(end)) == ({HostState.UNDONE}, 0)
    assert all(host.truth == host.in_map == OLD for host in world.hosts.values())
    assert all(len(state.names(*BUSY)) <= 1 for state in world.states)
    undone = [event.host for event in world.ledger if event.kind in (EventKind.UNDONE, EventKind.AS_BEFORE)]
    assert undone == list(reversed(world.hosts))


def test_an_abort_leaves_the_rest_of_a_whole_rollout_as_it_is() -> None:
    rollout = begin_back({"a": 3, "b": 2}, RolloutPolicy())
    for event in (
        RolloutEvent(kind=EventKind.PAUSED, why="no other relay is proved"),
        RolloutEvent(kind=EventKind.ABORTED),
        RolloutEvent(kind=EventKind.CONFIRMED, host="b"),
    ):
        assert not rollout.ended
        rollout = step(rollout, event)
    assert (rollout.ended, rollout.names(HostState.CONFIRMED)) == (True, ["a", "b"])


@SOME
@given(WORLDS)
def test_a_replayed_ledger_is_the_state_of_then(world: World) -> None:
    """P5, and by the limit in `World.run` P10."""
    world.run()
    state = world.start()
    for event, then in zip(world.ledger, world.states[1:], strict=True):
        state = step(state, event)
        assert state == then


@SOME
@given(hosts(LASTING, most=6), POLICIES.map(lambda one: one.model_copy(update={"at_once": 1})))
def test_a_controller_killed_at_any_line_changes_nothing_of_the_end(
    fleet: list[SimulatedHost], policy: RolloutPolicy
) -> None:
    """P6: the next controller ends with the same fleet, from every prefix of the ledger."""
    calm = world_of(deepcopy(fleet), policy)
    wanted = calm.to_the_end()
    for line, dies_armed in product(range(len(calm.ledger)), (False, True)):
        world = world_of(deepcopy(fleet), policy, kill_at=line, dies_armed=dies_armed)
        end = world.to_the_end()
        assert steady(end) == steady(wanted), line
        assert {name: host.truth for name, host in world.hosts.items()} == {
            name: host.truth for name, host in calm.hosts.items()
        }
        assert exit_code(end) == exit_code(wanted)


def fleet_of_two_hundred() -> World:
    """Return a fleet of three kinds, in which four hosts fail and the budget allows that."""
    fleet = [SimulatedHost(clients=7 * number % 300, like="abc"[number % 3]) for number in range(200)]
    for number, fault in ((50, EventKind.UNDONE), (90, EventKind.STILL_BROKEN), (150, EventKind.UNDONE)):
        fleet[number].fault = fault
    policy = RolloutPolicy(budget=4, waves=("10%", "25%", "50%", "rest"))
    return world_of(fleet, policy, soak_fails=frozenset({"h70"}))


def picture(rollout: Rollout) -> tuple[object, ...]:
    """Return what the rest of a rollout follows from, while no host is lost."""
    hosts = rollout.hosts.values()
    known = [(one.state, one.wave, one.failed, one.soaked, one.registered) for one in hosts]
    return rollout.wave, rollout.waves, rollout.ended, rollout.paused, *known


def test_two_hundred_hosts_go_on_from_each_line_as_if_nothing_had_happened() -> None:
    """P6: the next controller comes to a state that the one before it has been in as well.

    The controller dies before it writes the line, and while the host of the line is armed.
    """
    calm = fleet_of_two_hundred()
    assert exit_code(calm.to_the_end()) == 1
    known, cut = {picture(state) for state in calm.states}, 0
    for line, (event, state) in enumerate(zip(calm.ledger, calm.states, strict=False)):
        is_cut = bool(event.host) and state.hosts[event.host].state is HostState.CUTTING
        cut += is_cut
        for dies_armed in (False, True)[: 1 + is_cut]:
            world = fleet_of_two_hundred()
            for name, truth in calm.truths[line].items():
                world.hosts[name].truth = truth
            if dies_armed:
                world.hosts[event.host].truth = OLD
            after = step(state, RolloutEvent(kind=EventKind.RESUMED))
            while picture(after) not in known and after.names(HostState.CHOSEN, HostState.LOST):
                for action in actions(after):
                    after = step(after, world.perform(after, action))
            assert picture(after) in known, (line, dies_armed)
    assert cut == 200


@SOME
@given(hosts([None, EventKind.INCONCLUSIVE]), POLICIES)
def test_without_a_verdict_nothing_is_taken_back(fleet: list[SimulatedHost], policy: RolloutPolicy) -> None:
    """P7."""
    world = world_of(fleet, policy)
    assert not world.to_the_end().failures
    assert not any(state.names(HostState.GOING_BACK, HostState.UNDONE) for state in world.states)


@SOME
@given(WORLDS, st.integers(0, 30))
def test_an_abort_settles_what_is_armed_and_begins_nothing(world: World, line: int) -> None:
    world.kill_at = line
    try:
        world.run()
    except Killed:
        world.settle_alone()
    if world.replayed().ended:
        return
    begun, world.kill_at = len(world.states), -1
    end = world.run(EventKind.ABORTED)
    assert end.ended and not end.names(*BUSY)
    for state in world.states[begun + 1 :]:
        assert not state.names(HostState.CUTTING)
        assert all(state.hosts[name].failed for name in state.names(HostState.GOING_BACK))


def prepared(name: str, clients: int, like: str = "a", **more: int) -> RolloutEvent:
    known = {"changes": 1, "generation": 1} | more
    return RolloutEvent(kind=EventKind.PREPARED, host=name, clients=clients, like=like, **known)


def begun(policy: RolloutPolicy, *events: RolloutEvent) -> Rollout:
    rollout = begin([event.host for event in events], policy)
    for event in events:
        rollout = step(rollout, event)
    return rollout


def waves(rollout: Rollout) -> list[list[str]]:
    return [
        [name for name, host in rollout.hosts.items() if host.wave == number]
        for number in range(1, rollout.waves + 1)
    ]


def test_six_hosts_of_two_kinds_as_the_readme_has_them() -> None:
    rollout = begun(
        RolloutPolicy(),
        prepared("hk1", 214),
        prepared("sg1", 9),
        prepared("fra1", 3, changes=0),
        prepared("tok1", 31, "b"),
        RolloutEvent(kind=EventKind.SKIPPED, host="lax1"),
        prepared("syd1", 40),
    )
    assert waves(rollout) == [["sg1", "tok1"], ["syd1"], ["hk1"]]
    assert rollout.names(HostState.CUTTING) == ["sg1"]
    assert rollout.names(HostState.IDLE) == ["fra1"]


def test_a_canary_with_clients_is_preferred() -> None:
    policy = RolloutPolicy(waves=("1", "rest"))
    clients = {"a": 0, "b": 5, "c": 2, "d": 90}
    like = dict.fromkeys(clients, "x")
    assert grouped(clients, like, policy) == [["c"], ["a"], ["b", "d"]]
    named = RolloutPolicy(canary=("d",), waves=("100%",))
    assert grouped(clients, like, named) == [["d"], ["a", "c", "b"]]


@pytest.mark.parametrize(
    ("on_failure", "undone"), [("stop", ["c"]), ("wave", ["b", "c"]), ("all", ["a", "b", "c"])]
)
def test_the_policy_says_what_is_taken_back(on_failure: str, undone: list[str]) -> None:
    policy = RolloutPolicy.model_validate({"on_failure": on_failure, "waves": ("rest",), "soak_s": 0})
    world = world_of([SimulatedHost(clients=1 + number) for number in range(3)], policy)
    world.hosts = dict(zip("abc", world.hosts.values(), strict=True))
    world.hosts["c"].fault = EventKind.UNDONE
    end = world.to_the_end()
    assert end.names(HostState.UNDONE) == undone
    assert exit_code(end) == FAILED


def test_it_pauses_after_the_first_wave_alone() -> None:
    policy = RolloutPolicy(waves=("1", "rest"), soak_s=0)
    world = world_of([SimulatedHost(clients=1 + number) for number in range(4)], policy, pauses=True)
    first = world.run()
    assert (first.names(HostState.CONFIRMED), bool(first.paused)) == (["h0"], True)
    assert world.run(EventKind.RESUMED).ended


def test_taken_back_is_the_newest_first() -> None:
    policy = RolloutPolicy(waves=("rest",), soak_s=0)
    world = world_of([SimulatedHost(clients=1 + number) for number in range(4)], policy)
    world.hosts["h3"].fault = EventKind.UNDONE
    world.to_the_end()
    order = [name for state in world.states for name in state.names(HostState.GOING_BACK)]
    assert order == ["h2", "h1"]


def test_the_others_are_taken_back_whatever_happens_to_one() -> None:
    policy = RolloutPolicy(waves=("rest",), soak_s=0, on_failure="all")
    rollout = begun(policy, *map(prepared, "abc", (1, 2, 3)))
    for kind, host in (
        (EventKind.CONFIRMED, "a"),
        (EventKind.REGISTERED, "a"),
        (EventKind.CONFIRMED, "b"),
        (EventKind.UNDONE, "c"),
        (EventKind.STUCK, "b"),
    ):
        rollout = step(rollout, RolloutEvent(kind=kind, host=host, hosts=(host,)))
    assert rollout.names(HostState.GOING_BACK) == ["a"]
    rollout = step(rollout, RolloutEvent(kind=EventKind.UNDONE, host="a"))
    assert (rollout.ended, rollout.names(HostState.STUCK), exit_code(rollout)) == (True, ["b"], STUCK)


def test_a_stuck_host_is_no_relay_for_the_others() -> None:
    policy = RolloutPolicy(canary=("c",), waves=("rest",), at_once=2, budget=3, soak_s=0)
    rollout = begun(policy, *map(prepared, "abc", (1, 2, 3)))
    rollout = step(rollout, RolloutEvent(kind=EventKind.STUCK, host="c"))
    assert (rollout.wave, rollout.names(HostState.CUTTING)) == (2, ["a"])


def test_a_host_that_does_not_hold_goes_back_also_when_its_wave_stays() -> None:
    policy = RolloutPolicy(waves=("rest",), soak_s=1, on_failure="stop")
    rollout = step(begun(policy, prepared("a", 1)), RolloutEvent(kind=EventKind.CONFIRMED, host="a"))
    rollout = step(rollout, RolloutEvent(kind=EventKind.SOAKED, hosts=("a",)))
    assert rollout.names(HostState.GOING_BACK) == ["a"]


def test_a_host_that_is_not_prepared_keeps_all_as_they_are() -> None:
    refused = RolloutEvent(kind=EventKind.UNPREPARED, host="b", code=3)
    rollout = begun(RolloutPolicy(), prepared("a", 1), refused)
    assert (rollout.ended, exit_code(rollout), rollout.names(*BUSY)) == (True, 3, [])


def test_a_relay_lost_on_its_way_back_twice_is_given_up() -> None:
    rollout = begun(RolloutPolicy(soak_s=1), prepared("a", 1), prepared("b", 2))
    for event in (
        RolloutEvent(kind=EventKind.CONFIRMED, host="a"),
        RolloutEvent(kind=EventKind.SOAKED, hosts=("a",)),
        RolloutEvent(kind=EventKind.LOST, host="a"),
        RolloutEvent(kind=EventKind.CONFIRMED, host="a"),
        RolloutEvent(kind=EventKind.LOST, host="a"),
    ):
        assert actions(rollout)
        rollout = step(rollout, event)
    assert (rollout.names(HostState.STUCK), exit_code(rollout)) == (["a"], STUCK)
