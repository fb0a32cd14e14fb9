"""The agent's two streams on one host, and single commands there.

Every failure has a name and a next step.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from engine.boot import READY, agent_payload, boot_command, elevated_command
from engine.login import Login, Unreachable
from inventory.errors import DerpfleetError

if TYPE_CHECKING:
    from engine.ssh import Running

# The agent sends a heartbeat every 5 s while it works. A slow disk needs time for an old journal.
SILENCE_S = 60
READY_S = 30  # for the login shell, sudo and Python to start
AFTER_NOISE_S = 3  # for READY after other output
NOISE_MAX = 2000
NOISE_LINES = 20
# The diff of an event shows files of up to 64 KiB. Packed facts hold some dozens of files of up to
# 256 KiB, and the output of `nginx -T`.
LINE_MAX = 3 << 20  # facts, packed; a line of empty lists only takes 70 MiB of memory
OUTPUT_MAX = 64 << 20  # a million lines of a journal
WRONG_PASSWORD = "sudo did not accept the password"  # noqa: S105
PASSWORD_STEP = "check ssh.sudo_password of the host"  # noqa: S105
LOST_STEP = (
    "run the same command again; the agent on the host finishes its present resource, takes a deploy back "
    "that is not confirmed, and ends"
)


class NotReady(DerpfleetError):
    """The login worked, but the agent did not start. Nothing was sent to the host.

    The reason is sudo, Python, or output of the login shell.
    """

    exit_code = 3


# Texts of the errors of sudo and of sudo-rs.
_ASKS_PASSWORD = ("password is required", "terminal is required", "interactive authentication is required")
_NOT_ALLOWED = ("not in the sudoers", "may not run sudo", "not allowed to execute", "afraid I can't do that")
_NO_PROGRAM = ("not found", "No such file", "Unknown command")  # of sudo and of shells
_WANTS_TERMINAL = ("must have a tty",)
_GONE = (OSError, EOFError)  # of a connection; paramiko raises EOFError when it cannot send


class _Sudo:
    """The password of sudo for one command.

    It is sent once, and only when sudo asks. Otherwise another program would read it.
    """

    def __init__(self, login: Login) -> None:
        self._password = login.sudo_password()
        self._asked = 0
        self.prompt = f"[derpfleet-{secrets.token_hex(8)}]"  # no other output contains it

    @property
    def has_password(self) -> bool:
        return self._password is not None

    @property
    def refused(self) -> bool:
        """Return whether sudo asked again."""
        return self._asked > 1

    def answer(self, channel: Any) -> bool:
        """Answer a prompt that was seen. Return False when there is no answer."""
        self._asked += 1
        if self.refused or self._password is None:
            return False
        channel.sendall((self._password + "\n").encode())
        return True


def start(login: Login, command: str) -> Running:
    """Start `command` on the host. Raises Unreachable.

    The host is dialled first: importing SSH takes about as long as a far host's answer.
    """
    with ThreadPoolExecutor(1) as pool:
        dialling = None if login.jump else pool.submit(login.dial)
        from engine import ssh, ssh_errors  # noqa: PLC0415

        try:
            line = dialling.result() if dialling else None
        except OSError as error:
            raise ssh_errors.explain(login, error) from error
        return ssh.Running(login, command, line)


class AgentChannel:
    """The agent's two streams on one host, after READY: `send` bytes, `read_line`."""

    def __init__(self, login: Login) -> None:
        """Connect, become root, wait for READY, and only then send the agent.

        Raises Unreachable, NotReady.
        """
        self.login = login
        self._sudo = _Sudo(login)
        command = boot_command(
            python=login.python,
            sudo=login.sudo,
            prompt=self._sudo.prompt,
            ask_password=self._sudo.has_password,
        )
        self._noise: deque[str] = deque(maxlen=20)
        self._running = start(login, command)
        try:
            self._channel = self._running.channel
            self._channel.settimeout(READY_S)
            self._stderr = threading.Thread(
                target=self._watch_stderr, name=f"{login.name} stderr", daemon=True
            )
            self._stderr.start()
            self._stdout: BinaryIO = self._channel.makefile("rb")
            self._await_ready()
            self._channel.settimeout(SILENCE_S)
        except BaseException:
            self._running.close()
            raise
        self.send(agent_payload())

    def send(self, data: bytes) -> None:
        """Send these bytes. Raises Unreachable when the connection is gone."""
        try:
            self._channel.sendall(data)
        except _GONE as error:
            raise self._lost(error) from error

    def read_line(self) -> bytes:
        """Return the next line of standard output, cut at LINE_MAX; b"" at its end.

        Raises Unreachable when the connection is gone or silent.
        """
        try:
            return self._stdout.readline(LINE_MAX)
        except _GONE as error:
            raise self._lost(error) from error

    def last_words(self) -> str:
        """Return the end of standard error, for an error message."""
        return "\n".join(self._noise)

    def close(self) -> None:
        """Close the channel and the connection.

        Any thread may call this, also on a connection that is gone.
        """
        self._running.close()

    def _lost(self, error: BaseException) -> Unreachable:
        return Unreachable(
            "the connection was lost",
            where=self.login.where,
            host=self.login.name,
            why=_words(error) or f"the host sent nothing for {SILENCE_S} s\n{self.last_words()}".strip(),
            next=LOST_STEP,
        )

    def _watch_stderr(self) -> None:
        """Answer sudo's prompt once, and keep the last lines of all other output."""
        pending = ""
        while True:
            try:
                data = self._channel.recv_stderr(4096)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            pending += data.decode(errors="replace")
            while self._sudo.prompt in pending:
                before, _, pending = pending.partition(self._sudo.prompt)
                self._keep(before)
                try:
                    answered = self._sudo.answer(self._channel)
                except _GONE:
                    return
                if not answered:
                    self._channel.close()
                    return
            *lines, pending = pending[-NOISE_MAX:].split("\n")
            self._keep("\n".join(lines))
            if pending and self._sudo.prompt[:1] not in pending:
                self._keep(pending)
                pending = ""

    def _keep(self, text: str) -> None:
        self._noise.extend(line for line in text.splitlines() if line.strip())

    def _await_ready(self) -> None:
        """Wait for READY. Raises NotReady."""
        try:
            line = _plain_line(self.read_line())
        except Unreachable as error:
            if isinstance(error.__cause__, TimeoutError):
                raise self._waits() from error
            raise
        if line == READY:
            return
        if line:
            raise self._noise_before_ready(line)
        status = self._channel.recv_exit_status()
        self._stderr.join(2)
        raise self._ended(status, self.last_words())

    def _waits(self) -> NotReady:
        """Return the error for a login shell that does not come to the command."""
        words = self.last_words()
        why = f"nothing came for {READY_S} s; its ~/.bashrc may wait for input, or start another shell"
        step = (
            f"let ~/.bashrc of {self.login.user} end early for logins without a terminal, with this "
            "first line: case $- in *i*) ;; *) return;; esac"
        )
        what = "the login shell does not start the command"
        return _not_ready(self.login, what, f"{why}\n{words}".strip(), step)

    def _noise_before_ready(self, line: str) -> NotReady:
        """Return the error for other output than READY: of the login shell, or of another program.

        The shell's output is followed by READY. A forced command is run in place of ours.
        """
        lines = [line]
        self._channel.settimeout(AFTER_NOISE_S)
        with suppress(Unreachable):
            while len(lines) < NOISE_LINES and (more := self.read_line()):
                lines.append(_plain_line(more))
                if lines[-1] == READY:
                    return self._noisy(line)
        words = "\n".join(one for one in [*lines, self.last_words()] if one)
        step = (
            "if it names another user, set ssh.user to that one; else look for a forced command "
            f"(~/.ssh/authorized_keys of {self.login.user}, sshd_config) and at the user's shell"
        )
        what = "the host did not run the command, and answered by itself"
        return _not_ready(self.login, what, f"it said:\n{words}", step)

    def _noisy(self, line: str) -> NotReady:
        what = "the login shell prints to standard output"
        why = f"it printed this before the agent started: {line!r}"
        step = f"remove that output for non-interactive logins (~/.bashrc of {self.login.user})"
        return _not_ready(self.login, what, why, f"{step}; nothing was sent to the host")

    def _ended(self, status: int, words: str) -> NotReady:
        """Return the error for a command that ended without any output."""
        login = self.login
        if self._sudo.refused:
            what, why, step = WRONG_PASSWORD, words, PASSWORD_STEP
        elif login.sudo and any(text in words.lower() for text in _ASKS_PASSWORD):
            what, why = "sudo wants a password", words
            step = "set ssh.sudo_password in the site file, or let this user use sudo without a password"
        elif any(text in words for text in _WANTS_TERMINAL):
            what, why = "sudo wants a terminal", words
            step = f"remove `Defaults requiretty` from sudo's settings for {login.user}, or log in as root"
        elif any(text in words for text in _NOT_ALLOWED):
            what, why = f"{login.user} may not use sudo", words
            step = "add the user to the sudo group, or log in as root"
        elif "sudo" in words and "not found" in words and login.python not in words.split("sudo", 1)[1]:
            what, why, step = "the host has no sudo", words, "install sudo, or log in as root"
        elif login.python in words and any(text in words for text in _NO_PROGRAM):
            what, why = f"the host has no {login.python}", words
            step = "install it (apt-get or dnf install python3), or set ssh.python to its path"
        else:
            what, why = "the agent did not start", words or f"exit status {status}"
            step = f"try: ssh {login.user}@{login.address} {login.python} -V"
        return _not_ready(login, what, why, step)


def _not_ready(login: Login, what: str, why: str, step: str) -> NotReady:
    return NotReady(what, where=login.where, host=login.name, why=why, next=step)


def _words(error: BaseException) -> str:
    return "the connection ended" if isinstance(error, EOFError) else str(error)


def _plain_line(line: bytes) -> str:
    return line[:NOISE_MAX].decode(errors="replace").strip()


def run_once(login: Login, argv: list[str]) -> tuple[int, str]:
    """Run one command as root on a fresh connection and return (exit status, output).

    It reads no input.

    Raises Unreachable, NotReady, and DerpfleetError when it prints more than OUTPUT_MAX.
    """
    sudo = _Sudo(login)
    ask = sudo.has_password
    command = elevated_command(argv, sudo=login.sudo, prompt=sudo.prompt, ask_password=ask)
    running = start(login, command)
    channel: Any = running.channel
    try:
        channel.settimeout(SILENCE_S)
        channel.set_combine_stderr(True)
        if not sudo.has_password:
            channel.shutdown_write()
        output = _output(login, channel, sudo)
        return channel.recv_exit_status(), output.decode(errors="replace")
    except TimeoutError as error:
        what, why = f"{argv[0]} does not end", f"it printed nothing for {SILENCE_S} s"
        raise Unreachable(what, where=login.where, host=login.name, why=why) from error
    except _GONE as error:
        what = "the connection was lost"
        raise Unreachable(what, where=login.where, host=login.name, why=_words(error)) from error
    finally:
        running.close()


def _output(login: Login, channel: Any, sudo: _Sudo) -> bytearray:
    """Return the output of the command, without sudo's own output before it."""
    output, prompt = bytearray(), sudo.prompt.encode()
    while piece := channel.recv(1 << 16):
        output += piece
        if len(output) > OUTPUT_MAX:
            why = f"it is longer than {OUTPUT_MAX} bytes"
            raise DerpfleetError("the command's output is too long", host=login.name, why=why)
        if prompt not in output[-len(piece) - len(prompt) :]:
            continue
        if not sudo.answer(channel):
            why = bytes(output).partition(prompt)[0].decode(errors="replace").strip()
            raise _not_ready(login, WRONG_PASSWORD, why, PASSWORD_STEP)
        channel.shutdown_write()
        output.clear()
    return output
