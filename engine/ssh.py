"""SSH by fabric and paramiko: strict host keys, and a connection for each command.

It is imported while the host is being dialled. Fabric accepts any host key by default. Here a key
is pinned in the site's known_hosts, and only `invoke trust` adds one.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import socket
from contextlib import suppress
from functools import partial
from typing import Any

import paramiko
from fabric import Config, Connection

from engine import known_hosts
from engine.eager import EagerTransport
from engine.login import CONNECT_S, Login, Unreachable

gc.freeze()  # the collector need not search imported objects again, especially not at the exit


class Running:
    """A command that runs on a host, on its own connection. `channel` is paramiko's."""

    def __init__(self, login: Login, command: str, line: socket.socket | None = None) -> None:
        """Start the command. `line` is a TCP connection to the host, if there is one.

        Raises Unreachable with the reason.
        """
        self._connection = _open(login, command, line)
        try:
            self.channel: Any = self._connection.client.get_transport().command_channel()
        except (paramiko.SSHException, OSError, EOFError) as error:
            _close(self._connection)
            raise explain(login, error) from error

    def close(self) -> None:
        """Close the connection and those that carry it.

        Any thread may call this, also when they are gone.
        """
        _close(self._connection)


def _open(login: Login, command: str = "", line: socket.socket | None = None) -> Connection:
    """Open a connection that accepts pinned host keys only, and send `command` with the login.

    Raises Unreachable, for the host or for one of its jump hosts.
    """
    options: dict[str, Any] = {"transport_factory": partial(EagerTransport, command=command)}
    options |= {"banner_timeout": CONNECT_S, "auth_timeout": CONNECT_S}
    options |= login.credentials() | ({"sock": line} if line else {})
    config = Config(overrides={"load_ssh_configs": False}, ssh_config=login.config or paramiko.SSHConfig())
    gateway = _gateway(login) or login.proxy_command or False
    way = {"gateway": gateway, "connect_timeout": CONNECT_S, "connect_kwargs": options}
    connection = Connection(login.alias, login.user, login.port, config=config, **way)
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        connection.client.get_host_keys().update(known_hosts.read(login.known_hosts))
        connection.open()
    except Exception as error:
        _close(connection)
        raise explain(login, error) from error
    connection.client.get_transport().set_keepalive(15)
    return connection


def _gateway(login: Login) -> Connection | None:
    """Open the last jump host through those before it, if there is one.

    Raises Unreachable, which names the jump host that failed.
    """
    hops = login.hops()
    return _open(hops[-1]) if hops else None


def _close(connection: Connection | None) -> None:
    """Close a connection, and then those that carry it."""
    while connection is not None:
        transport = connection.client.get_transport()
        if transport is not None and isinstance(transport.sock, socket.socket):
            # Otherwise paramiko's thread keeps the socket for up to 0.1 s, and the host its lock.
            with suppress(OSError):
                transport.sock.shutdown(socket.SHUT_RDWR)
        # fabric does not close it when the host has hung up, nor its socket to the ssh-agent.
        connection.client.close()
        connection = connection.gateway if isinstance(connection.gateway, Connection) else None


def offered_host_key(login: Login) -> paramiko.PKey:
    """Return the key that the host offers now, without logging in. Raises Unreachable."""
    gateway = _gateway(login)
    try:
        if gateway is not None:
            there = (login.address, login.port)
            sock: Any = gateway.transport.open_channel("direct-tcpip", there, ("", 0))
        else:
            sock = login.dial()
        transport = paramiko.Transport(sock)
        try:
            transport.start_client(timeout=CONNECT_S)
            return transport.get_remote_server_key()
        finally:
            transport.close()
    except (OSError, paramiko.SSHException) as error:
        raise explain(login, error) from error
    finally:
        _close(gateway)


# Texts of paramiko's errors about a key's file, for which it has no class of its own.
_BAD_KEY = (
    *("not a valid", "Invalid key", "Unable to parse key", "unpack requires", "encountered RSA key"),
    "Bad password",
)


def explain(login: Login, error: Exception) -> Unreachable:
    """Return the error with the reason why the login failed, and what to do next."""
    host, prefix = ("jump host's", "jump host: ") if login.is_hop else ("host", "")
    trust = f"invoke trust --host {login.name}"
    if isinstance(error, paramiko.BadHostKeyException):
        return Unreachable(
            f"the {host} key has CHANGED",
            where=login.where,
            host=login.name,
            why=(
                f"pinned {fingerprint(error.expected_key)}, offered {fingerprint(error.key)}: "
                "the host was reinstalled, or another machine answers in its place"
            ),
            next=(
                "compare the offered fingerprint with the host's own, on the provider's console; "
                f"if they are equal: {trust} --replace"
            ),
        )
    if "not found in known_hosts" in str(error):
        return Unreachable(
            f"the {host} key is not known",
            where=login.where,
            host=login.name,
            why=f"{login.known_hosts} has no entry for {login.key_name}",
            next=f"compare the key with the host's own and pin it: {trust}",
        )
    what, step = "no connection", "check the address, the port and the provider's firewall"
    if isinstance(error, paramiko.PasswordRequiredException):
        what = "the private key has a passphrase"
        step = "set ssh.key_passphrase, or add the key to your ssh-agent"
    elif isinstance(error, paramiko.AuthenticationException):
        what = "login refused"
        step = f"check ssh.user and ssh.key, or try: ssh -p {login.port} {login.user}@{login.address}"
    elif any(words in str(error) for words in _BAD_KEY):
        what = "the private key cannot be used"
        step = "check ssh.key (it must be the private key, not .pub) and ssh.key_passphrase of the host"
    elif isinstance(error, socket.gaierror):
        what, step = "the name does not resolve", "check ssh.address of the host"
    elif isinstance(error, FileNotFoundError | PermissionError):
        what, step = "the private key cannot be read", "check ssh.key of the host"
    why = str(error) or type(error).__name__
    return Unreachable(prefix + what, where=login.where, host=login.name, why=why, next=step)


def fingerprint(key: paramiko.PKey) -> str:
    """Return `ssh-ed25519 SHA256:…`, as `ssh-keygen -l` prints it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"
