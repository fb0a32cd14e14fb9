"""A wave of a rollout: its hosts are watched, and registered in one transaction."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.rollout.state import EventKind, RolloutEvent
from fleet.rollout import wave
from fleet.rollout.under_way import UnderWay
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError
from inventory.model import Host
from tests.control.tailscale import policies
from tests.fleet.test_withdraw import proof
from tests.support.tailscale_api import TAILNET, WRITES, tailnet

HOSTS = ("hk1", "sg1")


class Clock:
    """The time of a soak, in which a proof takes no time."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wave, "time", Clock())


def soaked(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch, hk1: str, *, control: bool | None = True
) -> RolloutEvent:
    """Watch both hosts. `hk1`: whether each of its proofs holds, as in "yyn"; sg1's all do."""
    answers = iter(hk1)

    def climbed(_: UnderWay, hosts: Sequence[Host]) -> list[Any]:
        now = next(answers)
        return [proof(host.name, ok=host.name != "hk1" or now == "y") for host in hosts]

    monkeypatch.setattr(UnderWay, "climbed", climbed)
    monkeypatch.setattr(UnderWay, "control", lambda *_: control)
    event = wave.soak(under_way, [under_way.host(name) for name in HOSTS])
    assert list(answers) == []
    return event


def test_a_wave_is_proved_every_five_seconds(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    event = soaked(under_way, monkeypatch, "yyyy")
    assert event == RolloutEvent(kind=EventKind.SOAKED)
    assert "8 of 8 proofs hold in 20 s" in shown.getvalue()


def test_a_proof_that_flaps_is_no_failure(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    assert soaked(under_way, monkeypatch, "nnyy") == RolloutEvent(kind=EventKind.SOAKED)
    assert "6 of 8 proofs hold" in shown.getvalue()


def test_three_in_a_row_are_a_failure_at_once_while_a_control_proves(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = soaked(under_way, monkeypatch, "nnn")
    assert (event.kind, event.hosts) == (EventKind.SOAKED, ("hk1",))


def test_while_the_control_fails_too_no_host_is_blamed(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert soaked(under_way, monkeypatch, "nnny", control=False) == RolloutEvent(kind=EventKind.SOAKED)


@pytest.mark.parametrize(("answers", "control"), [("yyyn", True), ("nnnn", False)])
def test_one_that_is_not_proved_at_the_end_pauses_the_rollout(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch, answers: str, control: bool
) -> None:
    event = soaked(under_way, monkeypatch, answers, control=control)
    assert (event.kind, event.hosts) == (EventKind.PAUSED, ())
    assert "hk1" in event.why and "sg1" not in event.why


def registered(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch, result: bool | Exception
) -> tuple[RolloutEvent, list[tuple[str, ...]]]:
    """Register both hosts. Return the event, and the hosts of each transaction."""
    asked = list[tuple[str, ...]]()

    def put_into_map(_: Fleet, __: Any, hosts: Sequence[Host]) -> str:
        asked.append(tuple(host.name for host in hosts))
        if isinstance(result, Exception):
            raise result
        return "the map"

    monkeypatch.setattr(wave, "put_into_map", put_into_map)
    monkeypatch.setattr(wave, "compare_map", lambda *_: result)
    return wave.register_wave(under_way, [under_way.host(name) for name in HOSTS]), asked


@pytest.fixture
def confirmed(under_way: UnderWay) -> UnderWay:
    under_way.proofs |= {name: proof(name, ok=True) for name in HOSTS}
    return under_way


def test_a_wave_is_registered_in_one_transaction(
    confirmed: UnderWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, asked = registered(confirmed, monkeypatch, True)
    assert event == RolloutEvent(kind=EventKind.REGISTERED, hosts=HOSTS)
    assert asked == [HOSTS]


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (DerpfleetError("headscale does not answer"), "not registered: headscale does not answer"),
        (False, "does not agree with the relays"),
    ],
)
def test_a_map_that_is_not_taken_pauses_and_takes_nothing_back(
    confirmed: UnderWay, monkeypatch: pytest.MonkeyPatch, result: bool | Exception, why: str
) -> None:
    event, _ = registered(confirmed, monkeypatch, result)
    assert (event.kind, event.hosts) == (EventKind.PAUSED, ())
    assert why in event.why


@pytest.mark.parametrize("ok", [True, False])
def test_hosts_that_another_controller_has_confirmed_are_proved_first(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch, ok: bool
) -> None:
    under_way.proofs["sg1"] = proof("sg1", ok=True)
    monkeypatch.setattr(
        wave, "prove_hosts", lambda _, hosts, **__: {one.name: proof(one.name, ok=ok) for one in hosts}
    )
    event, asked = registered(under_way, monkeypatch, True)
    assert (event.kind, bool(asked)) == ((EventKind.REGISTERED, True) if ok else (EventKind.PAUSED, False))
    assert ok or event.why == "no longer proved: hk1"


@pytest.mark.parametrize(
    ("differs", "broken", "asked"),
    [(0, "", []), (1, "", [HOSTS]), (1, "hk1", [("sg1",)]), (1, "hk1 sg1", [])],
)
def test_hosts_that_are_left_alone_are_proved_and_registered_where_the_map_differs(
    under_way: UnderWay,
    monkeypatch: pytest.MonkeyPatch,
    shown: io.StringIO,
    differs: int,
    broken: str,
    asked: list[Any],
) -> None:
    def proofs(_: Fleet, hosts: Sequence[Host], **__: Any) -> dict[str, Any]:
        assert differs
        return {one.name: proof(one.name, ok=one.name not in broken) for one in hosts}

    found = map_that_differs(monkeypatch, differs)
    monkeypatch.setattr(wave, "prove_hosts", proofs)
    event = wave.compare_regions(under_way, [under_way.host(name) for name in HOSTS])
    assert event == RolloutEvent(kind=EventKind.REGISTERED, hosts=HOSTS)
    assert found == asked
    assert ("invoke deploy --host hk1" in shown.getvalue()) == bool(broken)


def map_that_differs(monkeypatch: pytest.MonkeyPatch, differs: int | Exception) -> list[tuple[str, ...]]:
    """Put a map in place that has another region. Return the hosts of each transaction."""
    asked = list[tuple[str, ...]]()

    def check(_: Sequence[Host]) -> int:
        if isinstance(differs, Exception):
            raise differs
        return differs

    def put(_: Fleet, __: Any, hosts: Sequence[Host]) -> str:
        asked.append(tuple(host.name for host in hosts))
        return "the map"

    server = SimpleNamespace(check=check, unasked=str)
    monkeypatch.setattr(wave, "control_server", lambda _: server)
    monkeypatch.setattr(wave, "put_into_map", put)
    monkeypatch.setattr(wave, "compare_map", lambda *_: True)
    return asked


def test_a_map_that_cannot_be_compared_pauses(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    map_that_differs(monkeypatch, DerpfleetError("headscale does not answer"))
    event = wave.compare_regions(under_way, [under_way.host("hk1")])
    assert event.kind is EventKind.PAUSED
    assert event.why == "not compared with the map: headscale does not answer"


def test_a_wave_enters_a_policy_by_one_write_or_not_at_all(
    confirmed: UnderWay, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO, tmp_path: Path
) -> None:
    """Without Tailscale's own regions, the first wave of one host waits for the next one."""
    monkeypatch.setenv("TS_KEY", WRITES)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with tailnet(tmp_path, policies.BARE) as net:
        monkeypatch.setenv("SSL_CERT_FILE", str(net.ca))
        confirmed.fleet.site = policies.site(api=net.url, tailnet=TAILNET, omit=True)
        monkeypatch.setattr(wave, "compare_map", lambda *_: True)
        hosts = [confirmed.host(name) for name in HOSTS]
        event = wave.register_wave(confirmed, hosts[:1])
        assert (event.kind, event.hosts, net.writes) == (EventKind.DEFERRED, ("hk1",), 0)
        assert "Leave derpmap.omit_default_regions out of the site file" in event.why
        assert "hk1 cannot be in the map alone, but with the next relay that is proved" in shown.getvalue()
        event = wave.register_wave(confirmed, hosts)
        assert event == RolloutEvent(kind=EventKind.REGISTERED, hosts=HOSTS)
        assert net.writes == 1 and '"900"' in net.text and '"901"' in net.text
