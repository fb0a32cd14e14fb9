"""A real OpenSSH server on a loopback port, in front of a throw-away copy of this machine.

Needs root. The copy is made by `stage.py`.

    with start_sshd(tmp_path) as sshd:
        ssh -p sshd.port -i sshd.key -o UserKnownHostsFile=sshd.known_hosts root@127.0.0.1

Accounts by default: `root` (key), `free` (key, sudo without password), `plain` (key, may not sudo),
`admin` (key, sudo with its password "correct horse").
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

PASSWORD = "correct horse"
STAGE = Path(__file__).with_name("stage.py")
_REFUSED_PORT = 2222


@dataclass(frozen=True)
class Account:
    """A login.

    `noise` is the text that its ~/.bashrc prints on stdout before anything else (bash reads that
    file under sshd). `bashrc` is any other text for that file. `sudo` says whether and how it may
    become root.
    """

    name: str
    password: str = ""
    sudo: Literal["none", "free", "password"] = "none"
    key: bool = True
    shell: str = "/bin/bash"
    noise: str = ""
    bashrc: str = ""


ACCOUNTS = (
    Account("root"),
    Account("free", sudo="free"),
    Account("admin", PASSWORD, sudo="password"),
    Account("plain"),
)


@dataclass
class Sshd:
    """A running server.

    `root`: the stage's file system seen from outside, for root. `log`: sshd's own.
    """

    port: int
    key: Path
    known_hosts: Path
    host_key: str  # "ssh-ed25519 AAAA…"
    log: Path
    pid: int  # process 1 of the stage
    _process: subprocess.Popen[bytes]
    _control: socket.socket
    address: str = "127.0.0.1"

    @property
    def root(self) -> Path:
        """The stage's `/`."""
        return Path(f"/proc/{self.pid}/root")

    def ssh(self, account: str = "root") -> list[str]:
        """Return the argv of the OpenSSH client that logs in here; a command may be appended."""
        options = {
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
            "BatchMode": "yes",
            "LogLevel": "ERROR",
        }
        flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return [
            "ssh", "-F", "none", "-p", str(self.port), "-i", str(self.key), *flags,
            f"{account}@{self.address}",
        ]

    @property
    def enter(self) -> list[str]:
        """An argv prefix that runs a program on the stage as root, not through SSH."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--uts", "--root", "--wd"]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program on the stage as root, not through SSH."""
        return subprocess.run([*self.enter, *argv], capture_output=True, text=True, check=False)

    def stop(self) -> None:
        """End it: every process on the stage dies with its process 1. May be called twice."""
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Sshd:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def make_key(path: Path) -> str:
    """Make an ed25519 key pair at `path`; return the public half as text, without its comment."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def start_sshd(
    folder: Path,
    *,
    accounts: Sequence[Account] = ACCOUNTS,
    password_login: bool = False,
    force_command: str = "",
    config: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
) -> Sshd:
    """Start a server whose keys and log are in `folder`, and return when it accepts connections.

    `force_command` and `config` are lines of sshd_config. `files` are put on the stage first; those
    that begin with `#!` are executable. `without` are paths that the stage does not have, such as
    /usr/bin/python3 or /usr/bin/sudo. Raises RuntimeError with the reason.
    """
    if os.geteuid() != 0:
        raise RuntimeError("a stage needs root: it has its own mount, pid and network namespaces")
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
    if not sshd:
        raise RuntimeError("there is no sshd here: install openssh-server")
    folder.mkdir(parents=True, exist_ok=True)
    public, host_public = make_key(folder / "id_ed25519"), make_key(folder / "host_key")
    listener = _listen()
    port = listener.getsockname()[1]
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {host_public}\n")
    log = folder / "sshd.log"
    wanted = {
        "sshd": sshd,
        "accounts": [
            {
                **asdict(a),
                "authorized_key": public + "\n",
                "bashrc": (f"echo '{a.noise}'\n" if a.noise else "") + a.bashrc,
            }
            for a in accounts
        ],
        "files": dict(files or {}),
        "without": list(without),
        "host_key": (folder / "host_key").read_text(),
        "sshd_config": _config(password_login=password_login, force_command=force_command, more=config),
    }
    process, control = _raise_stage(wanted, listener, log)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return Sshd(
        port, folder / "id_ed25519", known_hosts, host_public, log, int(children[0]), process, control
    )


def _raise_stage(
    wanted: Mapping[str, object], listener: socket.socket, log: Path
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a stage that serves `listener`; return its process and the socket that keeps it up.

    Raises RuntimeError.
    """
    control, theirs = socket.socketpair()
    with log.open("wb", buffering=0) as errors, listener, theirs:
        namespaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        process = subprocess.Popen(
            ["unshare", *namespaces, sys.executable, "-I", str(STAGE)],
            stdin=theirs.fileno(),
            stdout=listener.fileno(),
            stderr=errors,
            start_new_session=True,
        )
    control.sendall(json.dumps(wanted).encode() + b"\n")
    control.settimeout(20)
    try:
        answer = control.recv(16)
    except TimeoutError:
        answer = b""
    if answer != b"ready\n":
        process.kill()
        process.wait()
        control.close()
        raise RuntimeError(f"the stage did not come up: {log.read_text(errors='replace')[-2000:]}")
    return process, control


def _listen() -> socket.socket:
    while True:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        if listener.getsockname()[1] != _REFUSED_PORT:
            return listener
        listener.close()


def _config(*, password_login: bool, force_command: str, more: Sequence[str]) -> str:
    lines = [
        *more,  # sshd takes the first value of each setting
        "HostKey /run/stage/host_key",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "UseDNS no",
        "PrintMotd no",
        "LogLevel VERBOSE",
        "PermitRootLogin yes",
        "PubkeyAuthentication yes",
        f"PasswordAuthentication {'yes' if password_login else 'no'}",
        "KbdInteractiveAuthentication no",
        "AuthorizedKeysFile .ssh/authorized_keys",
        *([f"ForceCommand {force_command}"] if force_command else []),
    ]
    return "\n".join(lines) + "\n"
