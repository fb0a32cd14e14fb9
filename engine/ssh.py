"""SSH by fabric and paramiko: strict host keys, and a connection for each command. Imported when a connection is on its way already.

Fabric takes any host key by default. Here a key is pinned in the site's known_hosts, learnt only by `invoke trust`.
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

gc.freeze()  # what was imported stays: the collector need not go through it again, at the program's end least of all


class Running:
    """A command that runs on a host, on a connection of its own. `channel` is paramiko's."""

    def __init__(self, login: Login, command: str, line: socket.socket | None = None) -> None:
        """`line` is a TCP connection to the host, if there is one. Raises Unreachable, saying which of the many reasons it was."""
        self._connection = _open(login, command, line)
        try:
            self.channel: Any = self._connection.client.get_transport().command_channel()
        except (paramiko.SSHException, OSError, EOFError) as error:
            _close(self._connection)
            raise explain(login, error) from error

    def close(self) -> None:
        """Ends the connection and those that carry it. May be called from any thread, and when they are gone."""
        _close(self._connection)


def _open(login: Login, command: str = "", line: socket.socket | None = None) -> Connection:
    """A connection that meets pinned keys only; `command` is sent along with the login. Raises Unreachable, which may be a jump host's."""
    options = {"transport_factory": partial(EagerTransport, command=command), "banner_timeout": CONNECT_S, "auth_timeout": CONNECT_S}
    options |= login.credentials() | ({"sock": line} if line else {})
    config = Config(overrides={"load_ssh_configs": False}, ssh_config=login.config or paramiko.SSHConfig())
    way = {"gateway": _gateway(login) or login.proxy_command or False, "connect_timeout": CONNECT_S, "connect_kwargs": options}
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
    """The last jump host, open, through the ones before it. Raises Unreachable, which tells of the hop at fault."""
    hops = login.hops()
    return _open(hops[-1]) if hops else None


def _close(connection: Connection | None) -> None:
    """Ends a connection, and then the one that carries it."""
    while connection is not None:
        transport = connection.client.get_transport()
        if transport is not None and isinstance(transport.sock, socket.socket):
            with suppress(OSError):  # paramiko's thread would keep the line for up to 0.1 s, and the host its lock
                transport.sock.shutdown(socket.SHUT_RDWR)
        connection.client.close()  # fabric leaves it alone when the host has hung up, and with it the line to the ssh-agent
        connection = connection.gateway if isinstance(connection.gateway, Connection) else None


def offered_host_key(login: Login) -> paramiko.PKey:
    """The key that the host shows now, without logging in. Raises Unreachable."""
    gateway = _gateway(login)
    try:
        if gateway is not None:
            sock: Any = gateway.transport.open_channel("direct-tcpip", (login.address, login.port), ("", 0))
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


# What paramiko says of a key's file, in errors of no kind of their own.
_BAD_KEY = ("not a valid", "Invalid key", "Unable to parse key", "unpack requires", "encountered RSA key", "Bad password")


def explain(login: Login, error: Exception) -> Unreachable:
    """What kept us out, and what to do about it."""
    host, prefix = ("jump host's", "jump host: ") if login.is_hop else ("host", "")
    trust = f"invoke trust --host {login.name}"
    if isinstance(error, paramiko.BadHostKeyException):
        return Unreachable(
            f"the {host} key has CHANGED",
            where=login.where,
            host=login.name,
            why=f"pinned {fingerprint(error.expected_key)}, offered {fingerprint(error.key)}: "
            "the host was reinstalled, or somebody is in between",
            next=f"compare the fingerprint over the provider's console; if it is right: {trust} --replace",
        )
    if "not found in known_hosts" in str(error):
        return Unreachable(
            f"the {host} key is not known",
            where=login.where,
            host=login.name,
            why=f"{login.known_hosts} has no entry for {login.key_name}",
            next=f"look at it and accept it with: {trust}",
        )
    what, step = "no connection", "check the address, the port and the provider's firewall"
    if isinstance(error, paramiko.PasswordRequiredException):
        what, step = "the private key has a passphrase", "give ssh.key_passphrase, or add the key to your agent"
    elif isinstance(error, paramiko.AuthenticationException):
        what, step = "login refused", f"check ssh.user and ssh.key, or try: ssh -p {login.port} {login.user}@{login.address}"
    elif any(words in str(error) for words in _BAD_KEY):
        what, step = "the private key cannot be used", "check ssh.key (the private one, not .pub) and ssh.key_passphrase of the host"
    elif isinstance(error, socket.gaierror):
        what, step = "the name does not resolve", "check ssh.address of the host"
    elif isinstance(error, FileNotFoundError | PermissionError):
        what, step = "the private key cannot be read", "check ssh.key of the host"
    return Unreachable(prefix + what, where=login.where, host=login.name, why=str(error) or type(error).__name__, next=step)


def fingerprint(key: paramiko.PKey) -> str:
    """`ssh-ed25519 SHA256:…`, as `ssh-keygen -l` prints it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"
