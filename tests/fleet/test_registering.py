"""A deploy whose relays are PROVED but cannot be registered: the operator learns which they are."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from engine.report import Report
from engine.session import Locked
from fleet import deploy as verb
from fleet.shared.fleet import Fleet
from inventory.model import Host, Region, Site


def test_proved_but_not_registered_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [
        Host(name=name, domain=f"{name}.example.org", region=Region(id=id, code=name, name=name))
        for id, name in ((901, "hk1"), (902, "sg1"))
    ]
    named = {host.name: host for host in hosts}
    site = Site(path=str(tmp_path / "site.yml"), hosts=named, known_hosts="none")
    shown = io.StringIO()

    def register(*_: Any, **__: Any) -> None:
        raise Locked("the host is locked by me@desk", next="wait until that run ends")

    server = SimpleNamespace(unasked=lambda why: why, register=register)
    monkeypatch.setattr(verb, "control_server", lambda _: server)
    monkeypatch.setattr(verb, "_converge", lambda *_: 0)
    monkeypatch.setattr("fleet.shared.register.was_proved", lambda *_: True)
    proved = SimpleNamespace(ok=True)
    monkeypatch.setattr(verb, "prove_hosts", lambda _, hosts, **__: {host.name: proved for host in hosts})
    fleet = Fleet(site, Report(console=Console(file=shown, width=300)))
    assert verb.deploy(fleet, hosts) == Locked.exit_code
    assert "the host is locked by me@desk" in shown.getvalue()
    assert (
        "hk1, sg1: deployed and PROVED, but NOT registered, so clients do not use it yet. "
        "After the step above, run: invoke deploy --host hk1 --host sg1"
    ) in shown.getvalue()
