"""An SSH login that waits only where it must: what need not see an answer is sent along with what it follows.

A client that waits for every answer pays one round trip each for the authentication service, the login itself, the channel and the
command. RFC 4252 and 4254 let all four be sent at once: a server reads them in order, and takes the later ones only after the login. Only
OpenSSH is spoken to so, because its first channel is known to be number 0; with any other server this is paramiko's plain transport.
The host's key has been checked before any of it is sent. A command that follows a login that is refused is never read.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from paramiko import Channel, Message, SSHException, Transport
from paramiko.auth_handler import AuthOnlyHandler
from paramiko.common import cMSG_CHANNEL_OPEN, cMSG_CHANNEL_REQUEST, cMSG_SERVICE_REQUEST
from paramiko.transport import ServiceRequestingTransport

OPEN_S = 15
PIPELINES = "OpenSSH"
FIRST_CHANNEL = 0  # it numbers its channels from 0


def eager(command: str) -> Callable[..., Transport]:
    """A transport factory for paramiko's SSHClient.connect. The command, if it is not empty, is sent along with the login."""

    def make(*arguments: Any, **options: Any) -> Transport:
        transport = EagerTransport(*arguments, **options)
        transport.first_command = command.encode()
        return transport

    return make


def first_channel(transport: Any, command: str) -> Any:
    """The paramiko channel on which `command` runs, on a connection made for it. Raises SSHException, EOFError."""
    channel = transport.take_first_channel()
    if channel is None:
        channel = transport.open_session(timeout=OPEN_S)
        channel.exec_command(command)
    return channel


class EagerTransport(ServiceRequestingTransport):
    """A client transport that sends `first_command` (if there is one) right behind each attempt to log in."""

    first_command = b""
    auth_handler: Any
    _send_message: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._opening: threading.Thread | None = None
        self._first: Channel | None = None

    def take_first_channel(self) -> Channel | None:
        """The channel on which `first_command` runs; None when it was not sent. Raises SSHException when it did not open."""
        if self._opening is None:
            return None
        self._opening.join(OPEN_S)
        if self._first is None:
            raise self.get_exception() or SSHException("the first channel did not open")
        return self._first

    def ensure_session(self) -> None:
        """Asks for the authentication service, and does not wait for the answer: it can only be yes, or the end of the connection."""
        if not (self.is_active() and self.initial_kex_done):
            raise SSHException("No existing session")
        if self.auth_handler is None:
            request = Message()
            request.add_byte(cMSG_SERVICE_REQUEST)
            request.add_string("ssh-userauth")
            self._send_message(request)
            self.auth_handler = _Handler(self)

    def follow_login(self) -> None:
        """Called when an attempt to log in is on its way."""
        if self.first_command and PIPELINES in self.remote_version:
            self._opening = threading.Thread(target=self._open_first, name="first channel", daemon=True)
            self._opening.start()

    def _open_first(self) -> None:
        with contextlib.suppress(SSHException, EOFError):  # a refused login says so itself
            self._first = self.open_session(timeout=OPEN_S)

    def _send_user_message(self, data: Message) -> None:
        super()._send_user_message(data)  # type: ignore[misc]
        if self._opening is threading.current_thread() and data.asbytes().startswith(cMSG_CHANNEL_OPEN):
            request = Message()
            request.add_byte(cMSG_CHANNEL_REQUEST)
            request.add_int(FIRST_CHANNEL)
            request.add_string("exec")
            request.add_boolean(True)
            request.add_string(self.first_command)
            super()._send_user_message(request)  # type: ignore[misc]


class _Handler(AuthOnlyHandler):
    transport: Any

    def wait_for_response(self, event: threading.Event) -> Any:
        self.transport.follow_login()
        try:
            return super().wait_for_response(event)
        except SSHException:
            if self.authenticated:  # what followed the login ended the connection, and is asked for its reason later
                return []
            raise
