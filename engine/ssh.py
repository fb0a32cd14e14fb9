"""SSH by fabric and paramiko: strict host keys, and a connection for each command.

It is imported while the host is being dialled. Fabric accepts any host key by default. Here a key
is pinned in the site's known_hosts, and only `invoke trust` adds one.
"""

from __future__ import annotations

import gc
import logging
import socket
from contextlib import suppress
from functools import partial
from typing import Any

import paramiko
from fabric import Config, Connection

from engine import known_hosts
from engine.eager import EagerTransport
from engine.known_hosts import Pins
from engine.login import CONNECT_S, Login, reading_config
from engine.ssh_agent import Agent
from engine.ssh_errors import HostKeyRefused, explain, unreadable
from engine.ssh_options import ALGORITHMS, dropped

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else its tracebacks are printed
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
    connection = None
    try:
        if not login.jump:
            line = line or login.dial()
        connection = _prepared(login, command, line)
        connection.open()
    except Exception as error:
        transport = connection.client.get_transport() if connection else None
        reason = explain(login, error, line, transport)
        _close(connection)
        if line is not None:
            line.close()  # paramiko has not taken it, if it failed early
        raise reason from error
    connection.client.get_transport().set_keepalive(15)
    return connection


def _prepared(login: Login, command: str, line: socket.socket | None) -> Connection:
    """Return the connection before it is opened. Raises DerpfleetError."""
    pins = _pins(login)
    factory = partial(_transport, login, pins, command=command)
    options: dict[str, Any] = {"transport_factory": factory}
    options |= {"banner_timeout": CONNECT_S, "auth_timeout": CONNECT_S}
    options |= login.credentials() | ({"sock": line} if line else {})
    config = Config(overrides={"load_ssh_configs": False}, ssh_config=paramiko.SSHConfig())
    way = {"gateway": _gateway(login) or False, "connect_timeout": CONNECT_S, "connect_kwargs": options}
    connection = Connection(login.address, login.user, login.port, config=config, **way)
    connection.client.set_missing_host_key_policy(_OnlyPinned(pins, login.key_name))
    if options.get("allow_agent", True):
        connection.client._agent = Agent(*login.agent())
    return connection


def _transport(login: Login, pins: Pins, *arguments: Any, **options: Any) -> EagerTransport:
    """Return SSH's connection, which offers the algorithms that ~/.ssh/config leaves.

    The host is asked first for a key of a pinned kind, as by ssh. Raises SshConfigWrong.
    """
    kinds = [key.get_name() for key in pins.keys(login.key_name)]
    without = {}
    with reading_config(login.name):
        for setting, name in ALGORITHMS.items():
            if words := login.settings.get(setting):
                without[name] = dropped(getattr(paramiko.Transport, f"_preferred_{name}"), words)
    return EagerTransport(*arguments, kinds=kinds, without=without, **options)


class _OnlyPinned(paramiko.MissingHostKeyPolicy):
    """Accept the pinned keys only. paramiko asks between the key exchange and the login.

    paramiko's own check takes one key of a kind, and knows no revoked keys.
    """

    def __init__(self, pins: Pins, name: str) -> None:
        self._pins, self._name = pins, name

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Raise HostKeyRefused unless the key is pinned, and not revoked."""
        if key not in self._pins.keys(self._name):
            raise HostKeyRefused(self._pins, key)


def _pins(login: Login) -> Pins:
    """Return the pinned keys. Raises Unreachable."""
    try:
        return known_hosts.read(login.known_hosts)
    except OSError as error:
        raise unreadable(login, error) from error


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
    pins, gateway = _pins(login), _gateway(login)
    sock: Any = None
    transport = None
    try:
        if gateway is not None:
            there = (login.address, login.port)
            sock = gateway.transport.open_channel("direct-tcpip", there, ("", 0))
        else:
            sock = login.dial()
        transport = _transport(login, pins, sock)
        transport.banner_timeout = CONNECT_S
        try:
            transport.start_client(timeout=CONNECT_S)
            return transport.get_remote_server_key()
        finally:
            transport.close()
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise explain(login, error, sock, transport) from error
    finally:
        if sock is not None:
            sock.close()
        _close(gateway)
