"""SSH as people have it: the true cause of each refusal comes first, without tracebacks."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine import ssh, transport
from engine.login import Login, Unreachable
from engine.ssh import offered_host_key
from engine.ssh_errors import explain
from engine.transport import AgentChannel, NotReady, run_once
from inventory.model import Ssh
from tests.engine.conftest import login_to
from tests.support.sshd import Account, Sshd

NewSshd = Callable[..., Sshd]


def test_no_key_and_no_agent_is_said(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(Unreachable) as error:
        run_once(login_to(sshd, key=None), ["true"])
    assert error.value.what == "there is no key to log in with"
    assert "ssh.key" in error.value.next


def test_a_pinned_kind_is_asked_for_before_the_kinds_that_the_host_prefers(
    new_sshd: NewSshd, tmp_path: Path
) -> None:
    """Pin the RSA key of a host that offers an Ed25519 key first."""
    outer = new_sshd()
    make = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-C", "", "-f", str(tmp_path / "rsa")]
    subprocess.run(make, check=True)
    (outer.root / "run/rsa").write_text((tmp_path / "rsa").read_text())
    (outer.root / "run/rsa").chmod(0o600)
    inner = subprocess.Popen(
        [*outer.enter, "/usr/sbin/sshd", "-D", "-f", "/run/stage/sshd_config", "-h", "/run/rsa", "-p", "2200"]
    )
    try:
        known_hosts = tmp_path / "known_hosts"
        rsa = (tmp_path / "rsa.pub").read_text()
        known_hosts.write_text(f"{outer.known_hosts.read_text()}[127.0.0.1]:2200 {rsa}")
        login = login_to(outer, port=2200, jump=f"root@127.0.0.1:{outer.port}", known_hosts=known_hosts)
        while inner.poll() is None and ":2200" not in outer.run("ss", "-Hltn").stdout:
            time.sleep(0.05)
        assert offered_host_key(login).get_name() == "ssh-rsa"
        assert run_once(login, ["echo", "here"]) == (0, "here\n")
        known_hosts.write_text(outer.known_hosts.read_text())
        assert offered_host_key(login).get_name() == "ssh-ed25519"
    finally:
        outer.stop()
        inner.wait(10)


def through(command: str, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    """Return a login through a ProxyCommand."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(f"Host 127.*\n  Port {sshd.port}\n  ProxyCommand {command}\n")
    return login_to(sshd)


PIPE = """\
import socket, sys, threading
line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := sys.stdin.buffer.raw.read(65536):
        line.sendall(data)
    line.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := line.recv(65536):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
"""


def test_a_proxy_command_is_a_way_in(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipe.py").write_text(PIPE)
    command = f"{sys.executable} {shlex.quote(str(tmp_path / 'pipe.py'))} %h %p 2>/dev/null"
    login = through(command, sshd, tmp_path, monkeypatch)
    assert run_once(login, ["echo", "here"]) == (0, "here\n")
    assert offered_host_key(login).get_name() == "ssh-ed25519"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("no-such-program %h %p", "no-such-program"),
        ("sh -c 'echo the bastion is closed >&2; exit 3'", "the bastion is closed"),
        ("sh -c 'exit 3'", "it ended with status 3"),
    ],
)
def test_a_proxy_command_that_fails_is_named(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, why: str
) -> None:
    login = through(command, sshd, tmp_path, monkeypatch)
    for call in (lambda: run_once(login, ["true"]), lambda: offered_host_key(login)):
        began = time.monotonic()
        with pytest.raises(Unreachable, match="the ProxyCommand of") as error:
            call()
        assert why in error.value.why
        assert error.value.next.startswith(f"run it by hand: {command[:5]}")
        assert time.monotonic() - began < ssh.CONNECT_S


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (["AllowTcpForwarding no"], "the jump host 127.0.0.1 does not forward connections"),
        ([], "the jump host 127.0.0.1 cannot connect to the host"),
    ],
)
def test_a_jump_host_that_does_not_pass_us_on_is_named(
    new_sshd: NewSshd, config: list[str], what: str
) -> None:
    server = new_sshd(config=config)
    login = login_to(server, port=1, jump=f"root@127.0.0.1:{server.port}")
    for call in (lambda: run_once(login, ["true"]), lambda: offered_host_key(login)):
        with pytest.raises(Unreachable) as error:
            call()
        assert error.value.what == what


@pytest.mark.parametrize("bashrc", ["read answer\n", "exec cat\n", "sleep 30\n"])
def test_a_login_shell_that_does_not_come_to_the_command_is_named(
    new_sshd: NewSshd, monkeypatch: pytest.MonkeyPatch, bashrc: str
) -> None:
    monkeypatch.setattr(transport, "READY_S", 1)
    server = new_sshd(accounts=[Account("root", bashrc=bashrc)])
    with pytest.raises(NotReady, match="the login shell does not start the command") as error:
        AgentChannel(login_to(server))
    assert "case $- in *i*) ;; *) return;; esac" in error.value.next


def test_a_login_shell_that_is_not_there_is_not_called_a_missing_python(new_sshd: NewSshd) -> None:
    server = new_sshd(accounts=[Account("root", bashrc="exec no-such-shell\n")])
    with pytest.raises(NotReady, match="the agent did not start") as error:
        AgentChannel(login_to(server))
    assert "no-such-shell: not found" in error.value.why


WORDS = 'Please login as the user "admin" rather than the user "root".'


@pytest.mark.parametrize("command", [f"echo '{WORDS}';echo;sleep 1;exit 142", f"echo '{WORDS}' >&2"])
def test_the_words_of_a_forced_command_are_quoted(new_sshd: NewSshd, command: str) -> None:
    with pytest.raises(NotReady) as error:
        AgentChannel(login_to(new_sshd(force_command=command)))
    assert WORDS in error.value.why
    assert "bashrc" not in error.value.next


@contextmanager
def answering(words: bytes) -> Iterator[int]:
    """Listen on a port where each connection gets these bytes and, if there are any, its end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept = []

        def serve() -> None:
            for _ in range(2):
                line, _address = listener.accept()
                kept.append(line)
                line.recv(100)
                line.sendall(words)
                if words != b"silence":
                    line.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)
        for line in kept:
            line.close()


@pytest.mark.parametrize(
    ("words", "what", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", "a web server answers", "400 Bad Request"),
        (b"Exceeded MaxStartups\r\n", "no SSH server answers", "Exceeded MaxStartups"),
        (b"Not allowed at this time\r\n", "no SSH server answers", "Not allowed at this time"),
        (b"a tarpit's line\r\n" * 200, "no SSH server answers", "a tarpit's line"),
        (b"\xff\xfe\x00\r\n", "no SSH server answers", "Error reading SSH protocol banner"),
        (b"", "no SSH server answers", "Error reading SSH protocol banner"),
        (b"silence", "no SSH server answers", ""),
    ],
)
def test_another_server_on_the_port_is_named(
    sshd: Sshd, words: bytes, what: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "CONNECT_S", 1)
    with answering(words) as port:
        login = login_to(sshd, port=port)
        for call in (lambda: run_once(login, ["true"]), lambda: offered_host_key(login)):
            with pytest.raises(Unreachable) as error:
                call()
            assert what in error.value.what
            assert why in error.value.why
            assert "check ssh.port" in error.value.next


def test_paramiko_prints_no_tracebacks() -> None:
    code = "import engine.ssh, logging; logging.getLogger('paramiko.transport').error('Traceback')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("sudo: sorry, you must have a tty to run sudo", "sudo wants a terminal"),
        ("sudo: interactive authentication is required", "sudo wants a password"),
        ("sudo: A terminal is required to authenticate", "sudo wants a password"),
        ("sudo: I'm sorry free. I'm afraid I can't do that", "free may not use sudo"),
        ("sudo: Account expired, contact your administrator", "the agent did not start"),
    ],
)
def test_words_of_every_sudo_are_understood(new_sshd: NewSshd, words: str, what: str) -> None:
    server = new_sshd(files={"/usr/bin/sudo": f"#!/bin/sh\necho {shlex.quote(words)} >&2\nexit 1\n"})
    with pytest.raises(NotReady) as error:
        AgentChannel(login_to(server, "free"))
    assert error.value.what == what
    assert words in error.value.why
    assert error.value.next


def test_a_file_that_is_refused_on_the_way_is_no_unreadable_key() -> None:
    """Connections may be refused with the same errors as files, but without a name."""
    login = Login("hk1", Ssh(), address="192.0.2.1", known_hosts=Path("/dev/null"), base=Path("/"))
    assert explain(login, PermissionError(13, "Permission denied")).what == "no connection"
