"""Records under .runs. An odd host or a run that was cut gives messages, never a traceback."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from engine.cache import CacheError
from engine.facts import Facts, Output
from engine.generations import Generation, History, UnconfirmedChanges
from engine.report import Report
from engine.run import RunLog, Verb
from fleet import logs, status
from fleet.shared import prove
from fleet.shared.fleet import Fleet
from fleet.shared.host_status import HostStatus, _read, _with_history
from inventory.model import Host, Region, Site
from probe.keys import ProverKeyError
from probe.page import Card
from probe.proof import LADDER, Proof, Rung
from tests.support.facts import DEBIAN_12

HOST = Host(name="hk1", domain="hk1.example.org", region=Region(id=901, code="hk", name="Hong Kong"))
CARD = Card(
    host="hk1", domain=HOST.domain, region_id=901, region_code="hk", region_name="Hong Kong", flavour="python"
)


@pytest.fixture
def fleet(shown: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr("fleet.shared.records.RUNS", tmp_path / ".runs")
    site = Site(
        path=str(tmp_path / "site.yml"), hosts={"hk1": HOST}, known_hosts=str(tmp_path / "known_hosts")
    )
    return Fleet(site, Report(console=Console(file=shown, width=200)))


def said(**words: str) -> Facts:
    return replace(
        DEBIAN_12, commands={name: Output(status=0, stdout=text, stderr="") for name, text in words.items()}
    )


def test_the_last_deploy_is_no_other_run() -> None:
    names = (
        "2026-03-04T05-06-07Z-renew-9.jsonl\n"
        "2026-03-02T05-06-07Z-deploy-7.jsonl\n"
        "2026-03-01T05-06-07Z-deploy-8.jsonl\n"
    )
    assert _read(HOST, said(journal=names)).last_deploy == "2026-03-02 05:06:07"
    assert _read(HOST, said(journal="2026-03-04T05-06-07Z-withdraw-9.jsonl\n")).last_deploy == ""


def test_a_run_is_named_by_its_verb(tmp_path: Path) -> None:
    with RunLog(tmp_path, "hk1", Verb.DEPLOY) as log:
        pass
    assert _read(HOST, said(journal=f"{log.run_id}.jsonl\n")).last_deploy
    assert log.path.stem == log.run_id


def test_runs_of_one_second_have_names_of_their_own_in_their_order(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        with RunLog(tmp_path, "hk1", Verb.DEPLOY) as log:
            names.append(log.run_id)
    assert names == sorted(set(names))


@pytest.mark.parametrize(
    "noise",
    [
        *("", "Welcome!\n{}", "[1]", "null", '{"sg1": "far"}', '{"sg1": null}', "[" * 100_000),
        *('{"sg1": NaN}', '{"sg1": Infinity}', '{"sg1": -Infinity}', '{"sg1": -1.0}', '{"sg1": 1e300}'),
    ],
)
def test_noise_is_no_distance(noise: str) -> None:
    assert _read(HOST, said(distances=noise)).distances_ms == {}


def test_a_host_that_reports_nothing_has_an_empty_status() -> None:
    assert _read(HOST, said()).version == ""
    assert _read(HOST, said(distances='{"sg1": 12.5}')).distances_ms == {"sg1": 12.5}
    assert _read(HOST, said(metrics="derp_clients_local " + "9" * 5000)).clients is None


def test_the_release_that_runs_is_known() -> None:
    seen = _read(HOST, said(metrics='version{version="0.1.0"} 1\nrelay_release{id="0123456789abcdef"} 1\n'))
    assert (seen.version, seen.release) == ("0.1.0", "0123456789abcdef")
    image = f"example.org/derper:1 sha256:{'ab' * 32}\n"
    assert _read(HOST, said(image=image)).version == "example.org/derper:1"
    seen = _read(HOST, said(metrics='version{version="1.90.0"} 1\n', image=image))
    assert (seen.version, seen.release) == ("1.90.0", f"sha256:{'ab' * 32}")
    card = Card(**{**CARD.__dict__, "version": seen.version, "release": seen.release})
    assert str(status._cells(card)["version"]) == "1.90.0 abababab"
    for hostile in ('relay_release{id="<b>"} 1', 'relay_release{id="\x1b[2J"} 1'):
        assert _read(HOST, said(metrics=hostile, image="one two")).release == ""


def test_the_status_has_the_generation_and_since_when_changes_are_unconfirmed(
    fleet: Fleet, shown: io.StringIO
) -> None:
    left = UnconfirmedChanges(plan="sha256:x", who="bob@desk", verb="deploy", since=1772600000.0)
    known = History(
        generations=(Generation(number=12, at=1772500000.0), Generation(number=11)),
        unconfirmed=UnconfirmedChanges(),
    )
    seen = _with_history(HostStatus(), known)
    card = status._card(HOST, seen, proof(), ())
    assert (seen.generation, card.confirmed) == (12, "12 of 2026-03-03 01:06")
    seen = _with_history(HostStatus(), replace(known, unconfirmed=left))
    card = status._card(HOST, seen, proof(), ())
    fleet.report.console.print(status._table([card]))
    assert "(in force: generation 12 of 2026-03-03 01:06, unconfirmed since 2026-03-04 04:53)" in (
        shown.getvalue()
    )
    row = status._row(card, seen)
    assert (row["generation"], row["generation_since"], row["unconfirmed_since"]) == (
        12, 1772500000.0, 1772600000.0
    )  # fmt: skip
    nothing = status._row(status._card(HOST, HostStatus(), proof(), ()), HostStatus())
    assert (nothing["generation"], nothing["unconfirmed_since"]) == (None, None)


def test_a_version_is_no_markup(fleet: Fleet, shown: io.StringIO) -> None:
    seen = _read(HOST, said(metrics='version{version="1.0[/][red]"} 1\n'))
    fleet.report.console.print(status._table([Card(**{**CARD.__dict__, "version": seen.version})]))
    assert "1.0[/][red]" in shown.getvalue()


def test_a_log_that_was_cut_is_shown_up_to_there(fleet: Fleet, shown: io.StringIO) -> None:
    path = fleet.runs / "hk1" / "2026-03-04T05-06-07Z-deploy-9.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(json.dumps({"event": "error", "what": "line gone"}).encode() + b'\n{"event": "res\xe2')
    logs.show_last_run(fleet, "hk1")
    assert "line gone" in shown.getvalue()


def proof() -> Proof:
    return Proof(
        target="hk1",
        address=HOST.domain,
        rungs=tuple(Rung(name, "ok") for name in LADDER),
        at="2026-03-04T05:06:07+00:00",
        ms=0,
    )


@pytest.mark.parametrize(
    "write",
    [
        lambda fleet: RunLog(fleet.runs, "hk1", Verb.DEPLOY),
        lambda fleet: prove.keep(fleet, "hk1", proof()),
        lambda fleet: prove.forget(fleet, HOST),
        lambda fleet: prove.prover(fleet, HOST),
    ],
)
def test_a_folder_that_cannot_be_written_is_reported(
    write: Callable[[Fleet], object], fleet: Fleet, tmp_path: Path
) -> None:
    (tmp_path / ".runs").write_text("in the way, also for root")
    with pytest.raises((CacheError, ProverKeyError)) as error:
        write(fleet)
    assert error.value.why == "Not a directory"
    assert str(tmp_path / ".runs") in error.value.where
    assert error.value.next
