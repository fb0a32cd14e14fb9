"""SSH: the only file that knows of fabric and paramiko. One connection, strict host keys, one channel at a time.

Fabric takes any host key by default. Here a key is pinned in the site's known_hosts, learnt only by `invoke trust`.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import paramiko
from fabric import Config, Connection
from paramiko.config import SSHConfig

from engine.boot import READY, agent_payload, boot_command, elevated_command
from inventory.errors import DerpfleetError
from inventory.model import Ssh
from inventory.secrets import read_secret

CONNECT_S = 15
SILENCE_S = 60  # the agent sends a heartbeat every 5 s while it works
NOISE_MAX = 2000


class Unreachable(DerpfleetError):
    """No login: network, host key, key or password."""

    exit_code = 3


class NotReady(DerpfleetError):
    """A login, but no agent: sudo, Python, or noise from the login shell. Nothing was sent to the host."""

    exit_code = 3


class Login:
    """How to reach one host: made from the site, connects as often as asked."""

    def __init__(self, name: str, ssh: Ssh, *, address: str, known_hosts: Path, base: Path, is_hop: bool = False) -> None:
        """`address` is what to connect to when the site says nothing else; `base` is the folder of the site file.

        `is_hop`: it is a jump host on the way to the host called `name`.
        """
        self.name = name
        self._is_hop = is_hop
        self._ssh = ssh
        self._known_hosts = known_hosts
        self._base = base
        self._config = _ssh_config()
        self._alias = ssh.address or address
        found = self._config.lookup(self._alias)
        self.address = found.get("hostname", self._alias)
        self.port = ssh.port or int(found.get("port", 22))
        self.user = ssh.user or found.get("user", "root")
        self.jump = ssh.jump or found.get("proxyjump")
        self.python = ssh.python

    @property
    def key_name(self) -> str:
        """The host as known_hosts names it."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    @property
    def sudo(self) -> bool:
        """Whether root is reached through sudo."""
        return self.user != "root"

    def sudo_password(self) -> str | None:
        """The password that sudo wants, or None when it asks for none."""
        ref = self._ssh.sudo_password or self._ssh.password
        return read_secret(ref, base=self._base).reveal() if ref and self.sudo else None

    def connect(self) -> Connection:
        """An open connection.

        Raises Unreachable, saying which of the many reasons it was.
        """
        connection = self._connection(self._alias, user=self.user, port=self.port, gateway=self._gateway())
        try:
            connection.open()
        except Exception as error:
            connection.close()
            raise self._explain(error) from error
        connection.client.get_transport().set_keepalive(15)
        return connection

    def channel(self, connection: Connection, command: str) -> Any:
        """A channel on which `command` runs. Raises Unreachable."""
        try:
            channel = connection.client.get_transport().open_session(timeout=CONNECT_S)
            channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._explain(error) from error
        return channel

    def _connection(self, host: str, **where: Any) -> Connection:
        """Not yet open, and willing to meet pinned keys only."""
        config = Config(overrides={"load_ssh_configs": False}, ssh_config=self._config)
        connection = Connection(host, config=config, connect_timeout=CONNECT_S, connect_kwargs=self._credentials(), **where)
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        if self._known_hosts.exists():
            connection.client.load_host_keys(str(self._known_hosts))
        return connection

    def hops(self) -> list[Login]:
        """The jump hosts, in the order in which they are passed; each is reached through those before it."""
        words = [word.strip() for word in self.jump.split(",")] if self.jump else []
        found = []
        for number, word in enumerate(words):
            place = urlsplit(f"//{word}")
            changed = {"address": place.hostname, "user": place.username, "port": place.port, "jump": ",".join(words[:number]) or None}
            ssh = self._ssh.model_copy(update=changed)
            found.append(Login(self.name, ssh, address="", known_hosts=self._known_hosts, base=self._base, is_hop=True))
        return found

    def _gateway(self) -> Connection | None:
        """The last jump host, open, through the ones before it. Raises Unreachable, which tells of the hop at fault."""
        gateway = None
        for hop in self.hops():
            gateway = hop._connection(hop._alias, user=hop.user, port=hop.port, gateway=gateway)
            try:
                gateway.open()
            except Exception as error:
                gateway.close()
                raise hop._explain(error) from error
        return gateway

    def _credentials(self) -> dict[str, Any]:
        ssh = self._ssh

        def secret(ref: str) -> str:
            return read_secret(ref, base=self._base).reveal()

        kwargs: dict[str, Any] = {"banner_timeout": CONNECT_S, "auth_timeout": CONNECT_S}
        if ssh.key:
            kwargs |= {"key_filename": str(self._base / Path(ssh.key).expanduser()), "look_for_keys": False, "allow_agent": False}
        if ssh.key_passphrase:
            kwargs["passphrase"] = secret(ssh.key_passphrase)
        if ssh.password:
            kwargs |= {"password": secret(ssh.password), "look_for_keys": False, "allow_agent": False}
        return kwargs

    def _explain(self, error: Exception) -> Unreachable:
        host, prefix = ("jump host's", "jump host: ") if self._is_hop else ("host", "")
        where = f"{self.user}@{self.address}:{self.port}"
        trust = f"invoke trust --host {self.name}"
        if isinstance(error, paramiko.BadHostKeyException):
            return Unreachable(
                f"the {host} key has CHANGED",
                where=where,
                host=self.name,
                why=f"pinned {fingerprint(error.expected_key)}, offered {fingerprint(error.key)}: "
                "the host was reinstalled, or somebody is in between",
                next=f"compare the fingerprint over the provider's console; if it is right: {trust} --replace",
            )
        if "not found in known_hosts" in str(error):
            return Unreachable(
                f"the {host} key is not known",
                where=where,
                host=self.name,
                why=f"{self._known_hosts} has no entry for {self.key_name}",
                next=f"look at it and accept it with: {trust}",
            )
        what, step = "no connection", "check the address, the port and the provider's firewall"
        if isinstance(error, paramiko.AuthenticationException):
            what, step = "login refused", f"check ssh.user and ssh.key, or try: ssh -p {self.port} {self.user}@{self.address}"
        elif isinstance(error, socket.gaierror):
            what, step = "the name does not resolve", "check ssh.address of the host"
        elif isinstance(error, FileNotFoundError | PermissionError):
            what, step = "the private key cannot be read", "check ssh.key of the host"
        elif isinstance(error, paramiko.PasswordRequiredException):
            what, step = "the private key has a passphrase", "give ssh.key_passphrase, or add the key to your agent"
        return Unreachable(prefix + what, where=where, host=self.name, why=str(error) or type(error).__name__, next=step)


def _ssh_config() -> SSHConfig:
    path = Path("~/.ssh/config").expanduser()
    return SSHConfig.from_path(str(path)) if path.exists() else SSHConfig.from_text("")


def fingerprint(key: paramiko.PKey) -> str:
    """`ssh-ed25519 SHA256:…`, as `ssh-keygen -l` prints it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


def offered_host_key(login: Login) -> paramiko.PKey:
    """The key that the host shows now, without logging in. Raises Unreachable."""
    try:
        gateway = login._gateway()
        if gateway is not None:
            sock: Any = gateway.transport.open_channel("direct-tcpip", (login.address, login.port), ("", 0))
        else:
            sock = socket.create_connection((login.address, login.port), CONNECT_S)
        transport = paramiko.Transport(sock)
        try:
            transport.start_client(timeout=CONNECT_S)
            return transport.get_remote_server_key()
        finally:
            transport.close()
    except (OSError, paramiko.SSHException) as error:
        raise login._explain(error) from error


class AgentChannel:
    """The agent's two streams on one host, from READY on: `send` bytes, read `lines`."""

    def __init__(self, login: Login, *, trace: Callable[[str], None] | None = None) -> None:
        """Connects, becomes root, waits for READY, and only then sends the agent. Raises Unreachable, NotReady."""
        self.login = login
        password = login.sudo_password()
        self._token = f"[derpfleet-{secrets.token_hex(8)}]"
        command = boot_command(python=login.python, sudo=login.sudo, prompt=self._token, ask_password=password is not None)
        self.connection = login.connect()
        self._password = password
        self._prompts = 0
        self._noise: deque[str] = deque(maxlen=20)
        try:
            self._channel = login.channel(self.connection, command)
            self._channel.settimeout(SILENCE_S)
            self._stderr = threading.Thread(target=self._watch_stderr, name=f"{login.name} stderr", daemon=True)
            self._stderr.start()
            self._stdout: BinaryIO = self._channel.makefile("rb")
            self._await_ready()
        except BaseException:
            self.connection.close()
            raise
        self.send(agent_payload())

    def send(self, data: bytes) -> None:
        """Raises Unreachable when the connection is gone."""
        try:
            self._channel.sendall(data)
        except OSError as error:
            raise self._lost(error) from error

    def read_line(self) -> bytes:
        """The next line of standard output, or b"" at its end. Raises Unreachable when the connection is gone or silent."""
        try:
            return self._stdout.readline()
        except (OSError, EOFError) as error:
            raise self._lost(error) from error

    def last_words(self) -> str:
        """The end of standard error, for an error message."""
        return "\n".join(self._noise)

    def close(self) -> None:
        """Ends the channel and the connection. May be called from any thread, and on a connection that is gone."""
        with suppress(OSError, EOFError):
            self._channel.close()
        self.connection.close()

    def _lost(self, error: BaseException) -> Unreachable:
        return Unreachable(
            "the connection was lost",
            where=f"{self.login.user}@{self.login.address}:{self.login.port}",
            host=self.login.name,
            why=str(error) or f"nothing was heard for {SILENCE_S} s\n{self.last_words()}".strip(),
            next="the agent finishes what it has in hand; run the same command again",
        )

    def _watch_stderr(self) -> None:
        """Answers sudo's prompt once, keeps the last lines of all else."""
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
            while self._token in pending:
                before, _, pending = pending.partition(self._token)
                self._keep(before)
                self._prompts += 1
                if self._prompts > 1 or self._password is None:
                    self._channel.close()
                    return
                self._channel.sendall((self._password + "\n").encode())
            *lines, pending = pending[-NOISE_MAX:].split("\n")
            self._keep("\n".join(lines))
            if pending and self._token[:1] not in pending:
                self._keep(pending)
                pending = ""

    def _keep(self, text: str) -> None:
        self._noise.extend(line for line in text.splitlines() if line.strip())

    def _await_ready(self) -> None:
        line = self.read_line()
        if line.decode(errors="replace").strip() == READY:
            return
        status = self._channel.recv_exit_status() if not line else None
        self._stderr.join(2)
        words = self.last_words()
        raise self._not_ready(line.decode(errors="replace").rstrip(), status, words)

    def _not_ready(self, line: str, status: int | None, words: str) -> NotReady:
        login = self.login
        if line:
            what, why = "the login shell prints to standard output", f"before the agent was started it said: {line!r}"
            step = f"silence it for non-interactive logins (~/.bashrc of {login.user}); nothing was sent to the host"
        elif self._prompts > 1:
            what, why, step = "sudo did not take the password", words, "check ssh.sudo_password of the host"
        elif login.sudo and ("password is required" in words or "a terminal is required" in words):
            what, why, step = "sudo wants a password", words, "give ssh.sudo_password, or let this user use sudo without one"
        elif "not in the sudoers" in words or "may not run sudo" in words or "not allowed to execute" in words:
            what, why, step = f"{login.user} may not use sudo", words, "add the user to the sudo group, or log in as root"
        elif "sudo" in words and "not found" in words and login.python not in words.split("sudo", 1)[1]:
            what, why, step = "there is no sudo", words, "install sudo, or log in as root"
        elif "not found" in words or status == 127:
            what, why = f"there is no {login.python}", words
            step = "install it (apt-get install python3), or say where it is with ssh.python"
        else:
            what, why = "the agent did not start", words or f"exit status {status}"
            step = f"try: ssh {login.user}@{login.address} {login.python} -V"
        return NotReady(what, where=f"{login.user}@{login.address}:{login.port}", host=login.name, why=why, next=step)


def run_once(login: Login, argv: list[str]) -> tuple[int, str]:
    """(exit status, output) of one command as root on a fresh connection. Raises Unreachable."""
    password = login.sudo_password()
    command = elevated_command(argv, sudo=login.sudo, prompt="", ask_password=password is not None)
    connection = login.connect()
    try:
        channel = login.channel(connection, command)
        channel.settimeout(CONNECT_S)
        channel.set_combine_stderr(True)
        if password is not None:
            channel.sendall((password + "\n").encode())
        channel.shutdown_write()
        output = channel.makefile("rb").read().decode(errors="replace")
        return channel.recv_exit_status(), output
    except OSError as error:
        raise login._explain(error) from error
    finally:
        connection.close()
