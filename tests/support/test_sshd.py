"""The stage of the transport tests: real logins, nothing of it left on the machine."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.sshd import PASSWORD, Account, Sshd


def output_of(server: Sshd, account: str, command: str, **more: str) -> tuple[int, str]:
    done = subprocess.run(
        [*server.ssh(account), command], capture_output=True, text=True, timeout=20, check=False, **more
    )
    return done.returncode, done.stdout


def test_accounts_log_in_and_become_root_as_they_may(sshd: Sshd) -> None:
    assert output_of(sshd, "root", "id -un") == (0, "root\n")
    assert output_of(sshd, "free", "sudo -n id -un") == (0, "root\n")
    assert output_of(sshd, "admin", "sudo -n id -un")[0] == 1
    assert output_of(sshd, "admin", "sudo -S -p '' id -un", input=PASSWORD + "\n") == (0, "root\n")
    assert output_of(sshd, "plain", "sudo -n id -un")[0] == 1


def test_changes_on_the_stage_stay_there(sshd: Sshd) -> None:
    before = Path("/proc/sys/vm/swappiness").read_text()
    script = (
        "echo x > /etc/stage-mark; sysctl -q -w vm.swappiness=1; sysctl -q -w net.ipv4.ip_forward=1; ip -br "
        "link; cat /proc/net/tcp | wc -l"
    )
    status, output = output_of(sshd, "root", script)
    assert status == 0
    assert (sshd.root / "etc/stage-mark").read_text() == "x\n"
    assert not Path("/etc/stage-mark").exists()
    assert Path("/proc/sys/vm/swappiness").read_text() == before
    assert [line.split()[0] for line in output.splitlines()] == ["lo", "1"]


def test_noise_missing_programs_files_and_forced_commands(new_sshd: Callable[..., Sshd]) -> None:
    server = new_sshd(
        accounts=[Account("root", noise="Welcome!"), Account("plain")],
        without=["/usr/bin/python3"],
        files={"/usr/bin/hello": "#!/bin/sh\necho hello\n"},
    )
    assert output_of(server, "root", "hello; command -v python3 || echo none") == (
        0,
        "Welcome!\nhello\nnone\n",
    )
    assert output_of(server, "plain", "hello") == (0, "hello\n")
    assert output_of(new_sshd(force_command="/bin/echo no shell here"), "root", "hello") == (
        0,
        "no shell here\n",
    )


def test_a_stopped_server_leaves_no_process(new_sshd: Callable[..., Sshd]) -> None:
    server = new_sshd()
    with subprocess.Popen([*server.ssh(), "sleep 60"]) as caller:
        while "sleep 60" not in server.run("ps", "-eo", "args").stdout.splitlines():
            pass
        server.stop()
        assert caller.wait(5) == 255
    assert not Path(f"/proc/{server.pid}").exists()


def test_a_stage_that_cannot_be_made_says_why(new_sshd: Callable[..., Sshd]) -> None:
    with pytest.raises(RuntimeError, match="no-such-file"):
        new_sshd(without=["/no-such-file"])
