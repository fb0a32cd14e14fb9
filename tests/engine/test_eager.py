"""The login that does not wait for what it need not: fewer turns, the same answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine import eager
from engine.transport import Unreachable, run_once
from lab.delay import delaying
from tests.engine.conftest import login_to
from tests.support.sshd import Account, Sshd, make_key

NewSshd = Callable[..., Sshd]


def turns_of_a_command(sshd: Sshd, tmp_path: Path) -> int:
    with delaying(("127.0.0.1", sshd.port), rtt_s=0.25) as proxy:
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(f"[127.0.0.1]:{proxy.port} {sshd.host_key}\n")
        assert run_once(login_to(sshd, port=proxy.port, known_hosts=known_hosts), ["echo", "here"]) == (0, "here\n")
        return proxy.counts().turns


def test_login_and_command_are_one_turn(sshd: Sshd, tmp_path: Path) -> None:
    """TCP, the two sides' offers, the key exchange, and all the rest."""
    assert turns_of_a_command(sshd, tmp_path) == 4


def test_another_kind_of_server_is_asked_step_by_step(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "PIPELINES", "a server that OpenSSH is not")
    assert turns_of_a_command(sshd, tmp_path) in (6, 7)  # the service's acceptance is still not waited for


def test_a_refused_login_says_so_and_its_command_is_not_run(sshd: Sshd, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    mark = "/run/refused-login-was-here"
    with pytest.raises(Unreachable) as refused:
        run_once(login_to(sshd, key=str(tmp_path / "stranger")), ["touch", mark])
    assert refused.value.what == "login refused"
    assert not (sshd.root / mark.lstrip("/")).exists()


def test_after_a_refused_key_the_password_runs_the_command_once(new_sshd: NewSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_key(tmp_path / "stranger")
    monkeypatch.setenv("ROOT_PASSWORD", "battery staple")
    server = new_sshd(accounts=[Account("root", "battery staple")], password_login=True)
    login = login_to(server, key=str(tmp_path / "stranger"), password="env:ROOT_PASSWORD")
    assert run_once(login, ["sh", "-c", "echo ran >> /run/ran; cat /run/ran"]) == (0, "ran\n")
    assert (server.root / "run/ran").read_text() == "ran\n"


def test_a_server_that_opens_no_session_is_named(new_sshd: NewSshd) -> None:
    with pytest.raises(Unreachable, match="no connection"):
        run_once(login_to(new_sshd(config=["MaxSessions 0"])), ["true"])
