"""`invoke doctor` finds what is wrong and what will be, and says for each why and what next."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from control.contract import Look
from control.served import Map, Unknown
from engine.facts import Facts
from engine.login import Unreachable
from engine.report import Report
from fleet import doctor
from fleet.doctor import controller, diagnosis, hosts
from fleet.doctor.diagnosis import Diagnosis
from fleet.shared.fleet import Fleet
from probe.proof import LADDER, Proof, Rung
from probe.target import Target
from tests.fleet.test_events import EVENTS, wrong
from tests.roles.cases import FOLDER, facts_of, load

LOCK = """\
a==1.0 \\
    --hash=sha256:00
b==2.0 ; python_full_version < '3.12' \\
b==3.0 ; os_name == 'nt' \\
"""


@pytest.mark.parametrize(
    ("installed", "status", "words"),
    [
        ({"a": "1.0", "b": "3.0"}, "ok", "2 packages as locked"),
        ({"a": "1.0"}, "ok", "as locked"),  # b may be for another system
        ({"b": "2.0"}, "warning", "a is missing, locked is 1.0"),
        ({"a": "1.0", "b": "9"}, "warning", "b is 9, locked is 2.0 or 3.0"),
    ],
)
def test_packages_are_compared_with_the_lock(installed: dict[str, str], status: str, words: str) -> None:
    found = controller.packages(LOCK, installed.get)
    assert found.status == status and words in found.what


def test_the_lock_of_this_checkout_is_read() -> None:
    assert controller.packages(controller.LOCK.read_text(), lambda _: None).what.count(" is missing") > 10


@pytest.mark.parametrize(
    ("free", "status"), [(10 << 30, "ok"), (1 << 30, "warning"), (1 << 20, "failed")]
)
def test_a_full_disk_is_found(free: int, status: str) -> None:
    assert controller.disk(free, Path("/x")).status == status


@pytest.mark.parametrize(
    ("sources", "trouble", "status", "url"),
    [
        ("", "", "skipped", None),
        ("https://modules.example,direct", "", "ok", "https://modules.example/tailscale.com/@latest"),
        ("https://goproxy.example/,direct", "timed out", "warning", "https://goproxy.example/tailscale.com/@latest"),
        ("off", "", "warning", None),
        ("direct", "", "skipped", None),
    ],
)  # fmt: skip
def test_the_source_of_go_modules_is_asked(sources: str, trouble: str, status: str, url: str | None) -> None:
    urls: list[str] = []

    def asked(url: str) -> str:
        urls.append(url)
        return trouble

    found = controller.go_modules(sources, asked)
    assert found.status == status and urls == ([url] if url else [])
    assert bool(found.next) == (status == "warning")


def test_a_url_that_does_not_answer_is_a_reason() -> None:
    assert controller.asked("http://127.0.0.1:1/x")


def of_case(name: str, *, ahead_s: float = 0.0) -> list[Diagnosis]:
    host, site, facts = load(name)
    return list(hosts.of_facts(host, site, facts, now=facts.now - ahead_s))


def test_every_refusal_and_warning_is_found_without_a_plan() -> None:
    fine = of_case("bare")
    assert {one.status for one in fine} == {"ok"}
    unfit = [one for one in of_case("unfit") if one.status == "failed"]
    assert len(unfit) == len(json.loads((FOLDER / "unfit" / "plan.json").read_text())["refusals"]) > 1
    assert all(one.what and one.why and one.next for one in unfit)
    warned = [one for one in of_case("admission-tailscaled") if one.status == "warning"]
    assert len(warned) == 2 and all(one.why and one.next for one in warned)


def test_the_source_that_was_chosen_is_said_with_its_reason() -> None:
    host, site, facts = load("bare")
    auto = host.certificate.model_copy(update={"source": "auto", "server": "https://acme.example.org/dir"})
    host = host.model_copy(update={"certificate": auto})
    [chosen] = [one for one in hosts.of_facts(host, site, facts, now=facts.now) if one.check == "certificate"]
    assert (chosen.status, chosen.what) == ("ok", "certificate.source auto is acme here: server is set")
    assert not [one for one in of_case("bare") if one.check == "certificate"]


def test_a_clock_that_is_wrong_is_found() -> None:
    [clock] = [one for one in of_case("bare", ahead_s=7200.0) if one.check == "clock"]
    assert clock.status == "failed" and "2 hours ahead of this controller's" in clock.what


def proof(**changed: Rung) -> Proof:
    rungs = tuple(changed.get(name, Rung(name, "ok", "61 of 90 days left")) for name in LADDER)
    return Proof("hk1", "hk1.example.org", rungs, 1.0, "2026-11-29T00:00:00Z")


def test_rungs_become_diagnoses() -> None:
    host, *_ = load("bare")
    whole = list(hosts.of_proof(host, proof()))
    assert [(one.check, one.status) for one in whole] == [("certificate", "ok"), ("from outside", "ok")]
    low = Rung("tls", "ok", "9 of 90 days left", warning="it was not renewed")
    broken = Rung("stun4", "failed", "no answer", cause="a firewall", next="open it")
    found = list(hosts.of_proof(host, proof(tls=low, stun4=broken)))
    assert [(one.check, one.status) for one in found] == [
        ("STUN, IPv4", "failed"),
        ("TLS", "warning"),
        ("certificate", "ok"),
        ("from outside", "skipped"),
    ]
    assert (found[0].why, found[0].next) == ("a firewall", "open it")


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, list[Any], int]]:
    """Return a function that runs the verb on the host of the case `bare`.

    It returns the exit code, the JSON lines, and the number of connections to the host.
    """
    host, site, facts = load("bare")
    monkeypatch.setattr("fleet.shared.records.RUNS", tmp_path)
    monkeypatch.setattr("inventory.resolve_problems", lambda *_, **__: [])
    monkeypatch.setattr(hosts, "climb", lambda *_: [proof()])
    monkeypatch.setattr(hosts.time, "time", lambda: facts.now)

    def run(
        capsys: pytest.CaptureFixture[str],
        *,
        before: bool = False,
        facts: Facts | Exception = facts,
        looks: Look | Exception | None = None,
    ) -> tuple[int, list[Any], int]:
        connections = 0

        def connect(*_: object) -> Any:
            nonlocal connections
            connections += 1
            if isinstance(facts, Exception):
                raise facts
            return nullcontext(SimpleNamespace(facts=facts))

        def looked() -> Look | None:
            if isinstance(looks, Exception):
                raise looks
            return looks

        server = SimpleNamespace(look=looked, unasked=Unknown)
        monkeypatch.setattr(doctor, "control_server", lambda _: server)
        fleet = Fleet(site, Report(json_lines=True))
        monkeypatch.setattr(fleet, "session_for_reading", connect)
        code = doctor.doctor(fleet, [host], before=before)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return code, lines, connections

    return run


def test_one_look_at_everything(look: Any, capsys: pytest.CaptureFixture[str]) -> None:
    looks = Look(program="headscale 0.27.1", served=Unknown("not shown"), in_map={"hk1"})
    code, lines, connections = look(capsys, looks=looks)
    assert code == 0, lines
    assert connections == 1  # beside those of the ladder
    assert {line["event"] for line in lines} == {"diagnosis"}
    for line in lines:
        assert list(wrong(line, EVENTS["diagnosis"])) == []
    assert {line["host"] for line in lines} == {"here", "site", "headscale", "hk1"}
    assert any("headscale 0.27.1" in line["what"] for line in lines)


def test_a_relay_that_is_not_in_the_map_is_warned_of(look: Any, capsys: pytest.CaptureFixture[str]) -> None:
    looks = Look(program="headscale 0.27.1", served=Map({"Regions": {}}), in_map=set())
    code, lines, _ = look(capsys, looks=looks)
    [of_map] = [line for line in lines if line["host"] == "headscale"]
    assert of_map["status"] == "warning" and of_map["next"] == "invoke deploy --host hk1"
    assert code == 1  # the rung of the map


def test_before_a_deploy_nothing_is_asked_from_outside(
    look: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "climb", lambda *_: pytest.fail("climbed"))
    code, lines, _ = look(capsys, before=True)
    [outside] = [line for line in lines if line["check"] == "from outside"]
    assert code == 0 and outside["status"] == "skipped"


def test_the_worst_decides_the_exit_code(look: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, _ = look(capsys, facts=Unreachable("no route", why="down", next="look"), before=True)
    [login] = [line for line in lines if line["check"] == "login"]
    assert (code, login["why"], login["next"]) == (3, "down", "look")
    assert look(capsys, looks=Unreachable("no route"), before=True)[0] == 3
    assert look(capsys, facts=replace(facts_of("unfit")), before=True)[0] == 1


def test_people_read_why_and_next_below_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Report() as report:
        diagnosis.show(
            report,
            Diagnosis(host="hk1", check="clock", status="failed", what="wrong", why="a\nb", next="set it"),
        )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["hk1", "failed", "clock", "wrong"],
        ["hk1", "why", "a"],
        ["hk1", "b"],
        ["hk1", "next", "set", "it"],
    ]


def test_a_ladder_that_cannot_begin_is_a_diagnosis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, site, _ = load("bare")

    def fails(*_: object) -> list[Target]:
        raise Unreachable("no prover")

    monkeypatch.setattr(hosts, "targets", fails)
    found = hosts.outside(Fleet(site, Report()), [host]).diagnoses(host, Unknown("x"))
    assert [(one.check, one.status, one.what) for one in found] == [("from outside", "failed", "no prover")]
