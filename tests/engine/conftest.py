"""Shared by the engine's tests: a login for an account of the stage, and a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.facts import Ask
from engine.login import Login
from engine.plan import Mode
from engine.resource import Resource
from engine.run import NOTHING, Outcome, converge
from inventory.model import Ssh
from tests.support.jobs import fixed
from tests.support.sshd import PASSWORD, Sshd

PYTHON = "/usr/bin/python3"


def login_to(
    server: Sshd, user: str = "root", *, port: int | None = None, known_hosts: Path | None = None, **ssh: Any
) -> Login:
    """Return a login with the stage's key."""
    settings = {
        "address": "127.0.0.1",
        "port": port or server.port,
        "user": user,
        "key": str(server.key),
        "python": PYTHON,
    } | ssh
    return Login(
        "hk1",
        Ssh(**settings),
        address="127.0.0.1",
        known_hosts=known_hosts or server.known_hosts,
        base=Path("/"),
    )


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return `run(login, resources, mode="apply", **more)`: one run, with its log in tmp_path."""

    def one(
        login: Login,
        resources: Iterable[Resource],
        *,
        mode: Mode = "apply",
        ask: Ask = NOTHING,
        only: Sequence[str] = (),
        **more: Any,
    ) -> Outcome:
        job = fixed(resources, ask=ask, mode=mode, only=only)
        return converge(login, job, runs=tmp_path / "runs", **more)

    return one


@pytest.fixture
def sudo_password(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a reference to the stage's password."""
    monkeypatch.setenv("STAGE_PASSWORD", PASSWORD)
    return "env:STAGE_PASSWORD"


def renamed(server: Sshd, port: int) -> Path:
    """Return the known_hosts file of a server that is reached through another port."""
    path = server.known_hosts.with_name(f"known_hosts-{port}")
    path.write_text(f"[127.0.0.1]:{port} {server.host_key}\n")
    return path
