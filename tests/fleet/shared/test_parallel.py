"""Many hosts at once, and the effects of Ctrl-C and SIGTERM."""

from __future__ import annotations

import gc
import io
import os
import signal
import time
import weakref
from pathlib import Path
from threading import Event

import pytest
from rich.console import Console

from engine.report import Report
from engine.session import Stopped
from fleet.shared.errors import Interrupted
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError
from inventory.model import Host, Region, Site


def press_ctrl_c(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


class Talk:
    """A stand-in for `engine.session.Session`, whose agent is slow."""

    def __init__(self) -> None:
        self.is_open, self.asked, self.ended = True, [], Event()

    def stop(self) -> None:
        self.asked.append("stop")

    def close(self) -> None:
        self.asked.append("close")
        self.is_open = False
        self.ended.set()


@pytest.fixture
def fleet(shown: io.StringIO, tmp_path: Path) -> Fleet:
    host = Host(name="hk1", domain="hk1.example.org", region=Region(id=901, code="hk", name="Hong Kong"))
    site = Site(
        path=str(tmp_path / "site.yml"), hosts={"hk1": host}, known_hosts=str(tmp_path / "known_hosts")
    )
    return Fleet(site, Report(console=Console(file=shown, width=200)))


def test_all_are_done_before_an_error_is_raised(fleet: Fleet) -> None:
    done = []

    def work(number: int) -> None:
        if number == 3:
            raise ValueError("three")
        time.sleep(0.01)
        done.append(number)

    with pytest.raises(ValueError, match="three"):
        fleet.parallel.each(range(40), work)
    assert sorted(done) == [number for number in range(40) if number != 3]


def test_the_error_of_every_host_is_shown(fleet: Fleet, shown: io.StringIO) -> None:
    def work(name: str) -> None:
        code = 5 if name == "hk2" else 1
        raise type("Lost", (DerpfleetError,), {"exit_code": code})(f"{name} is lost", host=name)

    with pytest.raises(DerpfleetError, match="hk2 is lost") as error:
        fleet.parallel.each(["hk1", "hk2", "hk3"], work)
    assert error.value.exit_code == 5
    assert sorted(line for line in shown.getvalue().splitlines() if "lost" in line) == [
        "  what  hk1 is lost",
        "  what  hk3 is lost",
    ]


def test_a_defect_hides_no_hosts_error(fleet: Fleet, shown: io.StringIO) -> None:
    def work(name: str) -> None:
        raise ValueError("ours") if name == "hk1" else DerpfleetError("lost", host=name)

    with pytest.raises(ValueError, match="ours"):
        fleet.parallel.each(["hk1", "hk2"], work)
    assert "what  lost" in shown.getvalue()


def test_what_failed_is_shown_after_ctrl_c_as_well(fleet: Fleet, shown: io.StringIO) -> None:
    def work(name: str) -> None:
        if name == "hk2":
            press_ctrl_c()
            time.sleep(0.5)
            raise Stopped("stopped before anything was changed", host=name)
        raise DerpfleetError("lost", host=name)

    with pytest.raises(Interrupted):
        fleet.parallel.each(["hk1", "hk2"], work)
    assert "what  lost" in shown.getvalue()
    assert "before anything" not in shown.getvalue()


def test_closed_sessions_are_let_go_of(fleet: Fleet) -> None:
    """The facts of a session may take 32 MiB."""
    alive: list[weakref.ref[Talk]] = []

    def work(_: int) -> None:
        talk = Talk()
        alive.append(weakref.ref(talk))
        fleet.parallel.watch(talk)  # type: ignore[arg-type]  # a stand-in for a session
        assert sum(each() is not None for each in alive) <= 2 * 16
        talk.close()

    fleet.parallel.each(range(200), work)
    gc.collect()
    assert [each() for each in alive if each() is not None] == []


def test_the_agent_at_work_is_stopped_and_waited_for(fleet: Fleet, shown: io.StringIO) -> None:
    talk, ends = Talk(), []

    def work(_: str) -> None:
        fleet.parallel.watch(talk)  # type: ignore[arg-type]  # as above
        press_ctrl_c()
        talk.ended.wait(0.5)
        ends.append(list(talk.asked))
        talk.is_open = False

    with pytest.raises(Interrupted) as error:
        fleet.parallel.each(["hk1"], work)
    assert ends == [["stop"]]
    assert error.value.exit_code == 130
    assert error.value.next == "run the same command again: it goes on from there"
    assert "stopping after the resource in hand; press Ctrl-C once more to abandon it" in shown.getvalue()


def test_pressed_twice_all_are_abandoned(fleet: Fleet) -> None:
    talk = Talk()

    def work(_: str) -> None:
        fleet.parallel.watch(talk)  # type: ignore[arg-type]  # as above
        press_ctrl_c()
        while not talk.asked:
            time.sleep(0.01)
        press_ctrl_c()
        talk.ended.wait(30)

    began = time.monotonic()
    with pytest.raises(Interrupted) as error:
        fleet.parallel.each(["hk1"], work)
    assert time.monotonic() - began < 5
    assert error.value.what == "abandoned"
    assert talk.asked == ["stop", "close"]


def test_where_nothing_is_in_hand_nothing_is_waited_for(fleet: Fleet) -> None:
    connecting, begun = Event(), []

    def work(name: str) -> None:
        begun.append(name)
        if len(begun) == 16:
            press_ctrl_c()
        connecting.wait(30)

    began = time.monotonic()
    with pytest.raises(Interrupted):
        fleet.parallel.each([f"hk{number}" for number in range(20)], work)
    assert time.monotonic() - began < 5
    connecting.set()
    assert len(begun) == 16
