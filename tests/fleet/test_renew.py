"""`invoke renew`, from the facts of the hosts.

The renewal itself is tested in tests/files/test_certificate.py and tests/e2e.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from engine.report import Report
from engine.run import Outcome
from fleet import renew
from fleet.shared import step
from fleet.shared.fleet import Fleet
from inventory.model import Certificate, Host, Region, Site
from roles import paths
from tests.support.facts import DEBIAN_12, EMPTY_FILE


@pytest.fixture
def fleet(shown: io.StringIO, tmp_path: Path) -> Fleet:
    region, certificate = Region(id=901, code="hk", name="Hong Kong"), Certificate(source="letsencrypt")
    host = Host(name="hk1", domain="hk1.example.org", region=region, certificate=certificate)
    site = Site(
        path=str(tmp_path / "site.yml"), hosts={"hk1": host}, known_hosts=str(tmp_path / "known_hosts")
    )
    return Fleet(site, Report(console=Console(file=shown, width=200)))


@pytest.mark.parametrize(
    ("state", "back", "proved", "code"),
    [
        ("withdrawn", "invoke deploy --host hk1", False, 0),
        ("drained", "invoke drain --host hk1 --back", False, 0),
        ("", "", False, 1),
        ("", "", True, 0),
    ],
)
def test_a_host_whose_relay_is_stopped_has_no_proof_to_fail(
    fleet: Fleet,
    shown: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    back: str,
    proved: bool,
    code: int,
) -> None:
    note = {paths.WITHDRAWN: replace(EMPTY_FILE, content=state)}
    facts = replace(DEBIAN_12, files=note if state else {})
    counts = {"ok": 2, "changed": 0, "failed": 0, "skipped": 0}
    asked: list[str] = []

    def prove(_: Fleet, hosts: list[Host], **__: Any) -> dict[str, SimpleNamespace]:
        asked.extend(host.name for host in hosts)
        return {"hk1": SimpleNamespace(ok=proved)}

    monkeypatch.setattr(
        step, "converge", lambda *_, **__: Outcome("hk1", "apply", counts, facts, Path("/dev/null"))
    )
    monkeypatch.setattr(renew, "prove_hosts", prove)
    assert renew.renew(fleet, fleet.hosts(()), force=False) == code
    words = "its certificate is not overdue: the host's timer renews it in time, and --force at once"
    assert words in shown.getvalue()
    assert asked == ([] if state else ["hk1"])
    words = f"{state}: there is no relay to prove; {back} brings it back"
    assert (words in shown.getvalue()) is bool(state)
