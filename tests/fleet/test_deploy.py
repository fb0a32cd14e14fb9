"""A deploy of several hosts: the failure of one leaves those before it registered."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from engine import run, session
from engine.report import Report
from fleet import deploy
from fleet.shared import step
from fleet.shared.fleet import Fleet
from tests.control.test_headscale import site_of
from tests.engine.test_answers import Said, event, facts
from tests.fleet.test_withdraw import proof

FORM = event("hello", v=1, z=facts(python="x"))
CONTENT = event("hello", v=1, z=facts(os_version="twelve"))


@pytest.mark.parametrize("hello", [FORM, CONTENT], ids=["another form", "no version"])
def test_a_host_that_talks_nonsense_is_its_own_failure(
    hello: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, shown, registered = site_of(), io.StringIO(), []
    docker = site.hosts["hk1"].model_copy(update={"flavour": "docker"})
    fleet = Fleet(site, Report(console=Console(file=shown, width=400)))

    def converge(login: Any, job: Any, **more: Any) -> Any:
        if login.name == "hk1":
            return run.converge(login, job, **more)
        counts = dict.fromkeys(session.STATUSES, 0)
        return SimpleNamespace(counts=counts, failures=[], ok=True, facts=None, is_going_back=False)

    class Server(SimpleNamespace):
        def unasked(self, why: str) -> str:
            return why

        def register(self, proved: Any, *, all_proved: Any) -> None:
            registered.extend(host.name for host in proved)

    monkeypatch.setattr(Fleet, "runs", tmp_path)
    monkeypatch.setattr(step, "converge", converge)
    monkeypatch.setattr(session, "AgentChannel", lambda _: Said(hello))
    monkeypatch.setattr(deploy, "control_server", lambda _: Server())
    monkeypatch.setattr(
        deploy, "prove_hosts", lambda _, hosts, **__: {one.name: proof(one.name, ok=True) for one in hosts}
    )
    assert deploy.deploy(fleet, [site.hosts["sg1"], docker]) == 1
    assert registered == ["sg1"]
    assert "hk1" in shown.getvalue()
    assert "Traceback" not in shown.getvalue()
