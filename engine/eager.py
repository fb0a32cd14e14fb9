"""An SSH login that waits for no answer that it can do without.

Service, login, channel and command are sent together: one turn instead of four. RFC 4252 and 4254
allow it, because a server takes messages in their order. OpenSSH's process for logins stops reading
after the message that lets the user in. It hands its buffer to the process that serves the user
(`ssh_packet_get_state`). Messages behind a refused login are answered with UNIMPLEMENTED and
forgotten. This is done with OpenSSH only, because its first channel is known to be number 0.

The host's key has been checked before: paramiko's client checks it between key exchange and login.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from paramiko import Channel, Message, PKey, SSHException
from paramiko.auth_handler import AuthOnlyHandler
from paramiko.common import (
    MSG_UNIMPLEMENTED,
    cMSG_CHANNEL_OPEN,
    cMSG_CHANNEL_REQUEST,
    cMSG_SERVICE_REQUEST,
    cMSG_USERAUTH_REQUEST,
)
from paramiko.transport import ServiceRequestingTransport

OPEN_S = 15
OPENSSH = "OpenSSH"
FIRST_CHANNEL = 0
SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}  # of host keys; other kinds have one
# SHA-1, MD5, 3DES and CBC: paramiko still offers them, and every OpenSSH since 2011 knows better.
WEAK = {
    "ciphers": ["3des-cbc", "aes128-cbc", "aes192-cbc", "aes256-cbc"],
    "macs": ["hmac-sha1", "hmac-sha1-96", "hmac-md5", "hmac-md5-96"],
}
_FIRST_LINE = "Banner: "
ONE_MESSAGE = ("publickey", "password")  # methods in which the server asks nothing back


class EagerTransport(ServiceRequestingTransport):
    """A client's connection for one `command`.

    The command is empty for a connection through a jump host to the next one.
    """

    # Attributes that paramiko's types leave out.
    auth_handler: Any
    _channels: Any
    _next_channel: Any
    _send_message: Any
    _preferred_keys: Any

    def __init__(
        self,
        *arguments: Any,
        command: str = "",
        kinds: Sequence[str] = (),
        without: Mapping[str, Sequence[str]] = MappingProxyType({}),
        **options: Any,
    ) -> None:
        """`kinds`: the kinds of host keys to ask for first. `without`: algorithms not to use."""
        unused = {name: [*WEAK.get(name, ()), *without.get(name, ())] for name in {*WEAK, *without}}
        super().__init__(*arguments, **options | {"disabled_algorithms": unused})
        first = [each for kind in kinds for each in SIGNATURES.get(kind, (kind,))]
        known = self._preferred_keys
        self._preferred_keys = tuple(sorted(known, key=lambda each: each not in first))
        self.said: list[str] = []  # lines before the one that says that it is SSH
        # The server answers so to messages that followed a refused login.
        self._handler_table: dict[int, Any] = {**self._handler_table, MSG_UNIMPLEMENTED: lambda _: None}
        self._command = command
        self._first: Any = None
        self._opened = threading.Event()
        self._service_accepted = threading.Event()

    @property
    def pipelines(self) -> bool:
        """Whether the server is known to accept messages that are sent ahead of their turn."""
        return OPENSSH in self.remote_version

    def ensure_session(self) -> None:
        """Ask for the authentication service once, and do not wait.

        The answer is yes, or the end of the connection.
        """
        if not (self.is_active() and self.initial_kex_done):
            raise SSHException("No existing session")
        if self.auth_handler is None:
            self._send_message(_message(cMSG_SERVICE_REQUEST, "ssh-userauth"))
            self.auth_handler = _Handler(self)

    def await_service(self) -> None:
        """Wait until the service was accepted or the connection has ended."""
        while self.is_active() and not self._service_accepted.wait(0.1):
            pass

    def send_login(self, request: Message, method: str) -> None:
        """Send an attempt to log in, and the command behind it when one message is enough.

        The server accepts at most one of several attempts, and reads only the messages behind it.
        """
        self._send_message(request)
        if not (self._command and self.pipelines and method in ONE_MESSAGE):
            self._first = None
            return
        channel = self._first = self._first or self._new_channel()
        window, packet = self.default_window_size, self.default_max_packet_size
        self._send_message(_message(cMSG_CHANNEL_OPEN, "session", channel.get_id(), window, packet))
        self._send_message(_message(cMSG_CHANNEL_REQUEST, FIRST_CHANNEL, "exec", True, self._command))

    def command_channel(self) -> Any:
        """Return the channel of the command, after a login was accepted.

        Raises SSHException, EOFError.
        """
        channel = self._first
        if channel is None:
            channel = self.open_session(timeout=OPEN_S)
            channel.exec_command(self._command)
            return channel
        self._opened.wait(OPEN_S)
        if self._opened.is_set() and channel.active:
            channel.event.wait(OPEN_S)
        # The command may have ended and the channel may be closed by now. paramiko has forgotten it
        # then. Its own `open_channel` looks the channel up after the confirmation, so it cannot be
        # used here.
        if not channel.event_ready:
            raise self.get_exception() or SSHException("the first channel did not open")
        if channel.remote_chanid != FIRST_CHANNEL:
            raise SSHException(f"the server's first channel is number {channel.remote_chanid}")
        return channel

    def _new_channel(self) -> Any:
        """Make a channel as `open_channel` does before it sends anything."""
        with self.lock:
            number = self._next_channel()
            channel: Any = Channel(number)
            self._channels.put(number, channel)
            self.channels_seen[number] = True
            self.channel_events[number] = self._opened
            channel._set_transport(self)
            channel._set_window(self.default_window_size, self.default_max_packet_size)
        return channel

    def _log(self, level: int, msg: Any, *arguments: Any) -> None:
        """Keep the server's first lines, which paramiko hands to its log only."""
        if str(msg).startswith(_FIRST_LINE):
            self.said.append(str(msg).removeprefix(_FIRST_LINE))
        super()._log(level, msg, *arguments)  # type: ignore[misc]  # paramiko's types leave it out

    def _parse_service_accept(self, m: Message) -> None:
        super()._parse_service_accept(m)  # type: ignore[misc]  # as above
        self._service_accepted.set()


class _Handler(AuthOnlyHandler):
    transport: EagerTransport
    auth_event: threading.Event

    # It overrides AuthOnlyHandler's, which paramiko's types leave out.
    def auth_publickey(self, username: str, key: PKey) -> Any:  # type: ignore[override]
        """Sign with an RSA key only after the service was accepted.

        The way it signs depends on a message that the server sends before that.
        """
        if "rsa" in key.get_name() or not self.transport.pipelines:
            self.transport.await_service()
        return super().auth_publickey(username, key)

    def send_auth_request(self, username: str, method: str, finish_message: Any = None) -> Any:
        """Send the request as the parent does, but be ready for the answer before it can come.

        The parent is ready only afterwards.
        """
        self.auth_method, self.username = method, username
        self.auth_event = threading.Event()
        request = _message(cMSG_USERAUTH_REQUEST, username, "ssh-connection", method)
        finish_message(request)
        self.transport.send_login(request, method)
        try:
            return self.wait_for_response(self.auth_event)
        except (SSHException, OSError):
            # The command behind the login ended the connection: `command_channel` reports why.
            if self.authenticated:
                return []
            raise


def _message(kind: bytes, *fields: str | int | bool) -> Message:
    message = Message()
    message.add_byte(kind)
    for field in fields:
        if isinstance(field, bool):
            message.add_boolean(field)
        elif isinstance(field, int):
            message.add_int(field)
        else:
            message.add_string(field)
    return message
