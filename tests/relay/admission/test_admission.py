import asyncio

import pytest

from relay import flags
from relay.admission import admission
from relay.admission.admission import Admission, AllowFileCheck, Cached, TailscaledCheck
from relay.admission.allow_file import AllowFile, AllowFileError
from relay.admission.turns import Turns
from relay.core.reasons import Answer
from relay.io.gate import Verdict
from tests.relay.httpserver import asynchronous

A, B = bytes(range(32)), bytes(range(32, 64))


class Scripted:
    """A check with given answers that remembers its questions; `gate` holds answers back."""

    def __init__(self, *verdicts, gate=None):
        self.verdicts = list(verdicts)
        self.asked = []
        self.gate = gate
        self.under_way = self.most_under_way = 0

    async def ask(self, key, address, *_wanted):
        self.asked.append((key, address))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        if self.gate:
            await self.gate.wait()
        self.under_way -= 1
        return self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]


YES, NO = Verdict(True, Answer.VERIFY_URL_ALLOWED), Verdict(False, Answer.VERIFY_URL_REFUSED)
UNCLEAR = Verdict(False, Answer.VERIFY_URL_UNREACHABLE, clear=False)


# Asking once


@asynchronous
async def test_clear_answers_are_remembered_for_a_while(monkeypatch):
    now = 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    check = Scripted(YES, NO)
    cached = Cached(check, 10)
    assert [(await cached.ask(A, "x")).reason for _ in range(3)] == [YES.reason] * 3
    now = 109.9
    assert (await cached.ask(A, "x")).allowed
    assert not (await cached.ask(A, "y")).allowed, "the controller sees the address, so it may matter"
    now = 110.0
    assert not (await cached.ask(A, "x")).allowed
    assert len(check.asked) == 3


@asynchronous
async def test_unclear_answers_are_not():
    check = Scripted(UNCLEAR, YES)
    cached = Cached(check, 10)
    assert (await cached.ask(A, "x")).reason == UNCLEAR.reason
    assert (await cached.ask(A, "x")).reason == YES.reason


@asynchronous
async def test_one_question_per_key_at_a_time_and_its_answer_is_for_all_who_wait():
    for verdict in (YES, UNCLEAR):
        check = Scripted(verdict, gate=asyncio.Event())
        cached = Cached(check, 0)
        clients = [asyncio.ensure_future(cached.ask(A, "x")) for _ in range(20)]
        other = asyncio.ensure_future(cached.ask(B, "x"))
        await asyncio.sleep(0.01)
        assert check.asked == [(A, "x"), (B, "x")]
        clients[0].cancel()  # the one whose question it is hangs up: another asks
        await asyncio.sleep(0.01)
        check.gate.set()
        assert {v.reason for v in await asyncio.gather(*clients[1:], other)} == {verdict.reason}
        assert check.asked == [(A, "x"), (B, "x"), (A, "x")]
        assert len(cached._locks) == 0
        await cached.ask(A, "x")
        assert len(check.asked) == 4, "remembered for 0 s"


@asynchronous
async def test_one_key_from_two_addresses_asks_twice_but_not_at_once():
    check = Scripted(YES, gate=asyncio.Event())
    cached = Cached(check, 10)
    both = asyncio.gather(cached.ask(A, "x"), cached.ask(A, "y"))
    await asyncio.sleep(0.01)
    check.gate.set()
    await both
    assert check.asked == [(A, "x"), (A, "y")] and check.most_under_way == 1


@asynchronous
async def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(admission, "MAX_CACHED", 3)
    check = Scripted(YES)
    cached = Cached(check, 1000)
    for address in "abcd":
        await cached.ask(A, address)
    assert len(cached._answers) == 3
    await cached.ask(A, "d")
    assert len(check.asked) == 4
    await cached.ask(A, "a")
    assert len(check.asked) == 5, "the oldest went"


# Turns


def _key(number):
    return number.to_bytes(32, "big")


async def _settle():
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("crowd", "turns", "others"),
    [
        ([f"2001:db8::{i}" for i in range(900)], 8, [f"192.0.2.{i % 100}" for i in range(900)]),
        # Eight networks of an attacker, while the controller hangs: a ninth is asked for at once.
        ([f"192.0.2.{i % 8}" for i in range(400)], 48, [f"198.51.100.{i}" for i in range(16)]),
    ],
    ids=["one network has eight turns", "eight networks leave some of all sixty-four"],
)
@asynchronous
async def test_networks_with_many_questions_leave_turns_for_the_others(crowd, turns, others):
    check = Scripted(YES, gate=asyncio.Event())
    cached = Cached(check, 10)
    questions = []
    for addresses, under_way in ((crowd, turns), (others, 64)):
        for address in addresses:
            questions.append(asyncio.ensure_future(cached.ask(_key(len(questions)), address)))
        await _settle()
        assert check.under_way == under_way
    check.gate.set()
    assert all(verdict.allowed for verdict in await asyncio.gather(*questions))
    assert (check.most_under_way, len(check.asked)) == (64, len(crowd) + len(others))
    assert not cached._turns._networks


@asynchronous
async def test_the_network_with_the_fewest_turns_is_the_next():
    turns, served = Turns(4, 3), []
    ends = {name: asyncio.Event() for name in ("a", "b", "c")}

    async def hold(name, address):
        async with turns.take(address):
            served.append(name)
            await ends[name].wait()

    crowd = [asyncio.ensure_future(hold("a", "192.0.2.1")) for _ in range(9)]
    await _settle()
    late = [asyncio.ensure_future(hold(name, f"192.0.2.{2 + i}")) for i, name in enumerate("bcc")]
    await _settle()
    assert served == ["a", "a", "a", "b"]
    crowd[0].cancel()
    await _settle()
    assert served[4:] == ["c"], "the crowd has more of its own, and waits for longer"
    for end in ends.values():
        end.set()
    await asyncio.gather(*crowd[1:], *late)
    assert sorted(served[5:]) == ["a"] * 6 + ["c"]
    assert not turns._networks and turns._free == 4


@asynchronous
async def test_a_question_that_is_given_up_takes_no_turn():
    turns = Turns(1, 1)
    first, given_up, last = (asyncio.ensure_future(_held(turns)) for _ in range(3))
    await _settle()
    given_up.cancel()
    first.cancel()
    await asyncio.sleep(0)
    await _settle()
    assert (given_up.cancelled(), turns._free) == (True, 0)
    last.cancel()
    await _settle()
    assert not turns._networks and turns._free == 1


async def _held(turns):
    async with turns.take("192.0.2.1"):
        await asyncio.Event().wait()


@asynchronous
async def test_a_client_that_is_gone_before_its_turn_is_not_asked_about():
    """However many come and are displaced, no more are under way; the next one has its turn."""
    check = Scripted(YES, gate=asyncio.Event())
    strict = Admission([Cached(check, 10)])
    gone = set()
    clients = [
        asyncio.ensure_future(strict.admit(_key(i), "192.0.2.7", lambda i=i: i not in gone))
        for i in range(925)
    ]
    await _settle()
    gone |= set(range(924))
    check.gate.set()
    verdicts = await asyncio.gather(*clients)
    assert len(check.asked) == 9 and verdicts[924].allowed
    assert strict.counts.by_label() == {"verify_url_allowed": 9, "not_asked": 916}


@asynchronous
async def test_a_remembered_answer_needs_no_turn():
    check = Scripted(YES)
    cached = Cached(check, 10)
    await cached.ask(A, "192.0.2.7")
    check.gate = asyncio.Event()
    waiting = [asyncio.ensure_future(cached.ask(_key(i), "192.0.2.7")) for i in range(20)]
    await _settle()
    assert (await asyncio.wait_for(cached.ask(A, "192.0.2.7"), 1)).allowed
    check.gate.set()
    await asyncio.gather(*waiting)


# All together


@asynchronous
async def test_open():
    everybody = Admission([])
    assert everybody.is_open and (await everybody.admit(A, "x")).allowed
    assert [x async for x in everybody.revoked(lambda: [(A, "x")])] == []
    assert everybody.counts.by_label() == {"open": 1}


@asynchronous
async def test_checks_add_up(tmp_path):
    (tmp_path / "allow").write_text(A.hex())
    file = AllowFile(str(tmp_path / "allow"))
    remote = Scripted(YES, NO)
    both = Admission([AllowFileCheck(file), remote])
    assert not both.is_open
    assert [(await both.admit(key, "x")).reason for key in (A, A, B)] == [
        "verify_url_allowed",
        "verify_url_refused",
        "not_in_allow_file",
    ]
    assert len(remote.asked) == 2, "a refusal costs no further question"
    assert both.counts.by_label() == {
        "verify_url_allowed": 1,
        "verify_url_refused": 1,
        "not_in_allow_file": 1,
    }
    assert (await AllowFileCheck(file).ask(A, "")).reason == "in_allow_file"


@asynchronous
async def test_a_prober_is_admitted_without_a_question(tmp_path, monkeypatch):
    """At its arrival and later, whatever the other checks say, until its key is taken out."""
    monkeypatch.setattr(admission, "TICK_S", 0.01)
    probers, allowed = tmp_path / "probers", tmp_path / "allow"
    probers.write_text(f"nodekey:{A.hex()}  prover")
    allowed.write_text(B.hex())
    remote = Scripted(YES)
    file = AllowFile(str(allowed))
    strict = Admission(
        [AllowFileCheck(file), remote],
        allow_file=file,
        probers=AllowFile(str(probers), "prober key file"),
        recheck_s=0.01,
    )
    assert not strict.is_open
    assert (await strict.admit(A, "x")).reason == "in_prober_keys"
    assert remote.asked == []
    assert (await strict.admit(B, "y")).reason == "verify_url_allowed"
    search = asyncio.ensure_future(collect(strict, lambda: [(A, "x"), (B, "y")], 1))
    await asyncio.sleep(0.05)
    allowed.write_text(B.hex() + "\n" + "01" * 32)
    await asyncio.sleep(0.05)
    assert not search.done()
    probers.write_text("")
    assert await search == [(A, "x", Verdict(False, Answer.NOT_IN_ALLOW_FILE))]


def test_a_prober_key_file_that_cannot_be_used_is_named(tmp_path):
    base = ["-c=k", "-certmode=manual", f"-prober-keys={tmp_path}/keys"]
    with pytest.raises(AllowFileError, match=r"prober key file .*/keys: No such file"):
        admission.from_config(flags.parse(base))
    (tmp_path / "keys").write_text("x")
    with pytest.raises(AllowFileError, match=r"prober key file .*line 1"):
        admission.from_config(flags.parse(base))
    (tmp_path / "keys").write_text(A.hex())
    assert admission.from_config(flags.parse(base)).is_open, "it opens no relay and closes none"


class Broken:
    """A check with a bug for one key."""

    async def ask(self, key, address, *_wanted):
        if key == A:
            raise ZeroDivisionError
        return NO


@asynchronous
async def test_a_check_that_fails_refuses_and_ends_nothing(caplog, monkeypatch):
    monkeypatch.setattr(admission, "TICK_S", 0.01)
    broken = Admission([Broken()], recheck_s=0.01)
    assert await broken.admit(A, "x") == Verdict(False, Answer.CHECK_FAILED, clear=False)
    assert await collect(broken, lambda: [(A, "x"), (B, "y")], 2) == [(B, "y", NO)] * 2, (
        "again, and whom it cannot tell of stays"
    )
    assert {record.exc_info[0] for record in caplog.records} == {ZeroDivisionError}


async def collect(admission_, connected, count, within_s=5.0):
    found = []

    async def run():
        async for entry in admission_.revoked(connected):
            found.append(entry)
            if len(found) == count:
                break

    await asyncio.wait_for(run(), within_s)
    return found


@asynchronous
async def test_a_key_taken_off_the_list_is_found_within_a_tick(tmp_path, monkeypatch):
    monkeypatch.setattr(admission, "TICK_S", 0.01)
    path = tmp_path / "allow"
    path.write_text(f"{A.hex()}\n{B.hex()}")
    file = AllowFile(str(path))
    both = Admission([AllowFileCheck(file)], allow_file=file)
    search = asyncio.ensure_future(collect(both, lambda: [(A, "x"), (B, "y")], 1))
    await asyncio.sleep(0.05)
    path.write_text(A.hex())
    assert await search == [(B, "y", Verdict(False, Answer.NOT_IN_ALLOW_FILE))]
    assert both.counts.by_label() == {"revoked": 1}


@asynchronous
async def test_every_client_is_asked_about_again_spread_over_time(monkeypatch):
    monkeypatch.setattr(admission, "TICK_S", 0.01)
    check = Scripted(YES)
    clients = [(bytes((i,)) * 32, "x") for i in range(10)]

    class NoToFive:
        async def ask(self, key, address, *_wanted):
            await check.ask(key, address)
            return NO if key[0] == 5 else UNCLEAR if key[0] == 6 else YES

    asked_again = Admission([NoToFive()], recheck_s=0.1)
    began = asyncio.get_running_loop().time()
    found = await collect(asked_again, lambda: clients, 2)
    assert [entry[0][0] for entry in found] == [5, 5], "an unclear answer throws nobody out"
    assert asyncio.get_running_loop().time() - began >= 0.2, "one round in 0.1 s, and none at the start"
    assert check.most_under_way <= 2


@asynchronous
async def test_no_rechecks_where_none_are_wanted(monkeypatch):
    monkeypatch.setattr(admission, "TICK_S", 0.001)
    check = Scripted(NO)
    with pytest.raises(asyncio.TimeoutError):
        await collect(Admission([check], recheck_s=0), lambda: [(A, "x")], 1, within_s=0.1)
    assert check.asked == []


def test_what_the_flags_make(tmp_path):
    (tmp_path / "allow").write_text(A.hex())
    base = ["-c=k", "-certmode=manual"]
    assert admission.from_config(flags.parse(base)).is_open
    made = admission.from_config(
        flags.parse(
            [
                *base,
                f"-allow-file={tmp_path}/allow",
                "-verify-clients",
                "-socket=/s",
                "-verify-client-url=http://h/v",
                "-verify-client-url-fail-open",
            ]
        )
    )
    first, second, third = made._checks
    assert third._turns._of_one_network == 8
    assert isinstance(first, AllowFileCheck)
    assert isinstance(second._check, TailscaledCheck) and second._check._client._unix_path == "/s"
    assert (
        third._check._url == "http://h/v"
        and third._check._fail_open
        and third._for_s == 10
        and made._recheck_s == 300
    )
