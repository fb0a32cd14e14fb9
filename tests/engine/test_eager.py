"""The login that does not wait for answers that it does not need: fewer turns, the same results."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paramiko import Message

from engine import eager
from engine.eager import EagerTransport
from engine.login import CONNECT_S, Unreachable
from engine.ssh import Running
from engine.transport import run_once
from lab.delaying import delaying
from tests.engine.conftest import login_to
from tests.support.sshd import Account, Sshd, make_key

NewSshd = Callable[..., Sshd]


def turns_of_a_command(sshd: Sshd, tmp_path: Path, **ssh: Any) -> int:
    with delaying(("127.0.0.1", sshd.port), rtt_s=0.25) as proxy:
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(f"[127.0.0.1]:{proxy.port} {sshd.host_key}\n")
        assert run_once(
            login_to(sshd, port=proxy.port, known_hosts=known_hosts, **ssh), ["echo", "here"]
        ) == (0, "here\n")
        return proxy.counts().turns


def test_login_and_command_are_one_turn(sshd: Sshd, tmp_path: Path) -> None:
    """Count four turns: TCP, the offers of both sides, the key exchange, and all the rest."""
    assert turns_of_a_command(sshd, tmp_path) == 4


def test_another_kind_of_server_is_asked_step_by_step(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EagerTransport, "pipelines", False)
    assert turns_of_a_command(sshd, tmp_path) in (7, 8)


def test_a_command_that_has_ended_before_we_look_keeps_its_channel(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wake the waiting thread late, as on a busy machine.

    By then the other thread has received channel, output, status and end. paramiko's own
    `open_channel` loses such a channel, because it looks it up after the confirmation.
    """

    class Late(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            super().wait(timeout)
            time.sleep(0.2)
            return self.is_set()

    monkeypatch.setattr(eager.threading, "Event", Late)
    assert run_once(login_to(sshd), ["echo", "here"]) == (0, "here\n")
    assert run_once(login_to(sshd), ["false"]) == (1, "")


def test_an_answer_that_comes_at_once_is_not_missed(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sending thread sleep before it waits."""
    send = EagerTransport.send_login

    def sleepy(self: EagerTransport, request: Message, method: str) -> None:
        send(self, request, method)
        time.sleep(0.5)

    monkeypatch.setattr(EagerTransport, "send_login", sleepy)
    began = time.monotonic()
    assert run_once(login_to(sshd), ["echo", "here"]) == (0, "here\n")
    assert time.monotonic() - began < CONNECT_S


def test_a_refused_login_says_so_and_its_command_is_not_run(sshd: Sshd, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    mark = "/run/refused-login-was-here"
    with pytest.raises(Unreachable) as refused:
        run_once(login_to(sshd, key=str(tmp_path / "stranger")), ["touch", mark])
    assert refused.value.what == "login refused"
    assert not (sshd.root / mark.lstrip("/")).exists()


def test_after_a_refused_key_the_password_runs_the_command_once(
    new_sshd: NewSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(tmp_path / "stranger")
    monkeypatch.setenv("ROOT_PASSWORD", "battery staple")
    server = new_sshd(accounts=[Account("root", "battery staple")], password_login=True)
    login = login_to(server, key=str(tmp_path / "stranger"), password="env:ROOT_PASSWORD")
    assert run_once(login, ["sh", "-c", "echo ran >> /run/ran; cat /run/ran"]) == (0, "ran\n")
    assert (server.root / "run/ran").read_text() == "ran\n"


def test_key_and_password_both_asked_for_run_the_command_once(
    new_sshd: NewSshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOT_PASSWORD", "battery staple")
    both = ["AuthenticationMethods publickey,password"]
    server = new_sshd(accounts=[Account("root", "battery staple")], password_login=True, config=both)
    login = login_to(server, password="env:ROOT_PASSWORD")
    assert run_once(login, ["sh", "-c", "echo ran >> /run/ran; cat /run/ran"]) == (0, "ran\n")


def test_an_rsa_key_logs_in(new_sshd: NewSshd, tmp_path: Path) -> None:
    key = tmp_path / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(key)], check=True)
    server = new_sshd()
    (server.root / "root/.ssh/authorized_keys").write_text(key.with_suffix(".pub").read_text())
    assert run_once(login_to(server, key=str(key)), ["echo", "here"]) == (0, "here\n")


@pytest.fixture
def ssh_agent(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start an ssh-agent that holds a stranger's key, and then the right one."""
    make_key(tmp_path / "stranger")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    with subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL
    ) as agent:
        try:
            while not (tmp_path / "agent").exists():
                time.sleep(0.01)
            subprocess.run(["ssh-add", "-q", str(tmp_path / "stranger"), str(sshd.key)], check=True)
            yield
        finally:
            agent.terminate()


@pytest.mark.usefixtures("ssh_agent")
def test_the_agents_keys_are_tried_in_turn(sshd: Sshd) -> None:
    assert run_once(
        login_to(sshd, key=None), ["sh", "-c", "echo ran >> /run/agent-ran; cat /run/agent-ran"]
    ) == (0, "ran\n")


@pytest.mark.usefixtures("ssh_agent")
def test_the_line_to_the_agent_is_closed_although_the_host_has_hung_up(sshd: Sshd) -> None:
    running = Running(login_to(sshd, key=None), "kill $PPID")
    while running._connection.is_connected:
        time.sleep(0.01)
    to_the_agent = running._connection.client._agent._conn
    running.close()
    assert to_the_agent.fileno() == -1


def test_a_password_asked_for_at_the_keyboard(new_sshd: NewSshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the command after the login: the question has to be answered first."""
    monkeypatch.setenv("ROOT_PASSWORD", "battery staple")
    config = ["UsePAM yes", "KbdInteractiveAuthentication yes", "AuthenticationMethods keyboard-interactive"]
    files = {
        "/etc/pam.d/sshd": (
            "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n"
        )
    }
    server = new_sshd(accounts=[Account("root", "battery staple")], config=config, files=files)
    login = login_to(server, key=None, password="env:ROOT_PASSWORD")
    assert run_once(login, ["sh", "-c", "echo ran >> /run/ran; cat /run/ran"]) == (0, "ran\n")


def test_through_a_jump_host(new_sshd: NewSshd, tmp_path: Path) -> None:
    """Start a second server on the same stage, and reach it through the first."""
    outer = new_sshd()
    inner = subprocess.Popen(
        [*outer.enter, "/usr/sbin/sshd", "-D", "-f", "/run/stage/sshd_config", "-p", "2200"]
    )
    try:
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(outer.known_hosts.read_text() + f"[127.0.0.1]:2200 {outer.host_key}\n")
        login = login_to(outer, port=2200, jump=f"root@127.0.0.1:{outer.port}", known_hosts=known_hosts)
        while inner.poll() is None and ":2200" not in outer.run("ss", "-Hltn").stdout:
            time.sleep(0.05)
        assert run_once(login, ["echo", "here"]) == (0, "here\n")
    finally:
        outer.stop()  # nsenter's child dies with the stage
        inner.wait(10)


def test_nothing_is_sent_to_a_host_with_another_key(
    sshd: Sshd, new_sshd: NewSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []
    monkeypatch.setattr(EagerTransport, "send_login", lambda *arguments: sent.append(arguments))
    monkeypatch.setattr(EagerTransport, "ensure_session", lambda *arguments: sent.append(arguments))
    pinned = tmp_path / "known_hosts"
    pinned.write_text(f"[127.0.0.1]:{sshd.port} {new_sshd().host_key}\n")
    for known_hosts in (pinned, tmp_path / "none"):
        with pytest.raises(Unreachable):
            run_once(login_to(sshd, known_hosts=known_hosts), ["true"])
    assert sent == []


def test_a_server_that_opens_no_session_is_named(new_sshd: NewSshd) -> None:
    with pytest.raises(Unreachable, match="no connection"):
        run_once(login_to(new_sshd(config=["MaxSessions 0"])), ["true"])


def test_no_weak_algorithm_is_offered(new_sshd: NewSshd) -> None:
    near, far = socket.socketpair()
    with near, far, contextlib.closing(EagerTransport(near)) as transport:
        offered = [
            *(*transport.preferred_kex, *transport.preferred_ciphers, *transport.preferred_macs),
            *(*transport.preferred_keys, *transport.preferred_pubkeys),
        ]
    assert len(offered) > 20
    assert [one for one in offered if re.search("sha1|md5|3des|cbc|ssh-rsa|ssh-dss", one)] == []
    with pytest.raises(Unreachable, match="knows only algorithms that are not safe") as error:
        run_once(login_to(new_sshd(config=["MACs hmac-sha1", "Ciphers aes256-ctr"])), ["true"])
    assert "MACs" in error.value.next
