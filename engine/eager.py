"""An SSH login that waits only for what it has to see: service, login, channel and command go out together, one turn instead of four.

RFC 4252 and 4254 allow it, as a server takes messages in their order. OpenSSH's process for logins stops reading after the message that
lets the user in, and hands what it has in its buffer to the process that serves him (`ssh_packet_get_state`). What follows a login that is
refused is answered with UNIMPLEMENTED and forgotten. Only OpenSSH is spoken to so, because its first channel is known to be number 0.

The host's key has been checked before: paramiko's client does that between key exchange and login.
"""

from __future__ import annotations

import threading
from typing import Any

from paramiko import Channel, Message, PKey, SSHException
from paramiko.auth_handler import AuthOnlyHandler
from paramiko.common import MSG_UNIMPLEMENTED, cMSG_CHANNEL_OPEN, cMSG_CHANNEL_REQUEST, cMSG_SERVICE_REQUEST, cMSG_USERAUTH_REQUEST
from paramiko.transport import ServiceRequestingTransport

OPEN_S = 15
OPENSSH = "OpenSSH"
FIRST_CHANNEL = 0
ONE_MESSAGE = ("publickey", "password")  # ways in that ask nothing back


class EagerTransport(ServiceRequestingTransport):
    """A client's connection made for one `command`; none when it is empty, as on the way through a jump host."""

    # What paramiko's types leave out.
    auth_handler: Any
    _channels: Any
    _next_channel: Any
    _send_message: Any

    def __init__(self, *arguments: Any, command: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._handler_table: dict[int, Any] = {**self._handler_table, MSG_UNIMPLEMENTED: lambda _: None}  # what followed a refused login
        self._command = command
        self._first: Any = None
        self._opened = threading.Event()
        self._service_accepted = threading.Event()

    @property
    def pipelines(self) -> bool:
        """Whether the server is known to take what was sent ahead."""
        return OPENSSH in self.remote_version

    def ensure_session(self) -> None:
        """Asks for the authentication service once, and does not wait: the answer is yes, or the end of the connection."""
        if not (self.is_active() and self.initial_kex_done):
            raise SSHException("No existing session")
        if self.auth_handler is None:
            self._send_message(_message(cMSG_SERVICE_REQUEST, "ssh-userauth"))
            self.auth_handler = _Handler(self)

    def await_service(self) -> None:
        """Returns when the service was accepted, or the connection has ended."""
        while self.is_active() and not self._service_accepted.wait(0.1):
            pass

    def send_login(self, request: Message, method: str) -> None:
        """Sends an attempt to log in, and the command behind it when the attempt needs no more than this message.

        Of several attempts at most one is taken, and only what followed that one is read.
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
        """The channel on which the command runs, once a login was taken. Raises SSHException, EOFError."""
        channel = self._first
        if channel is None:
            channel = self.open_session(timeout=OPEN_S)
            channel.exec_command(self._command)
            return channel
        self._opened.wait(OPEN_S)
        if self._opened.is_set() and channel.active:
            channel.event.wait(OPEN_S)
        # The channel may have run its command and be closed by now. paramiko has forgotten it then, which is why its own
        # `open_channel` cannot be used here: it looks the channel up after the confirmation has come.
        if not channel.event_ready:
            raise self.get_exception() or SSHException("the first channel did not open")
        if channel.remote_chanid != FIRST_CHANNEL:
            raise SSHException(f"the server's first channel is number {channel.remote_chanid}")
        return channel

    def _new_channel(self) -> Any:
        """As `open_channel` makes one, before anything is sent."""
        with self.lock:
            number = self._next_channel()
            channel: Any = Channel(number)
            self._channels.put(number, channel)
            self.channels_seen[number] = True
            self.channel_events[number] = self._opened
            channel._set_transport(self)
            channel._set_window(self.default_window_size, self.default_max_packet_size)
        return channel

    def _parse_service_accept(self, m: Message) -> None:
        super()._parse_service_accept(m)  # type: ignore[misc]
        self._service_accepted.set()


class _Handler(AuthOnlyHandler):
    transport: EagerTransport
    auth_event: threading.Event

    def auth_publickey(self, username: str, key: PKey) -> Any:  # type: ignore[override]
        """How an RSA key signs depends on what the server tells before it accepts the service."""
        if "rsa" in key.get_name() or not self.transport.pipelines:
            self.transport.await_service()
        return super().auth_publickey(username, key)

    def send_auth_request(self, username: str, method: str, finish_message: Any = None) -> Any:
        """As its parent's, but ready for the answer before it can come, which the parent's is only afterwards."""
        self.auth_method, self.username = method, username
        self.auth_event = threading.Event()
        request = _message(cMSG_USERAUTH_REQUEST, username, "ssh-connection", method)
        finish_message(request)
        self.transport.send_login(request, method)
        try:
            return self.wait_for_response(self.auth_event)
        except (SSHException, OSError):
            if self.authenticated:  # what followed the login ended the connection: whoever asks for the channel hears why
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
