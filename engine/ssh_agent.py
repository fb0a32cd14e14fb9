"""The ssh-agent whose keys are offered to a host."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from contextlib import suppress

from paramiko.agent import AgentKey, AgentSSH

_BY_DEFAULT = "SSH_AUTH_SOCK"


class Agent(AgentSSH):
    """The agent at a socket; without keys if none answers there.

    paramiko's own class knows only the agent of the environment, and offers every key.
    """

    def __init__(self, path: str, only: Collection[bytes] | None) -> None:
        """`path`: of the socket; "" or `SSH_AUTH_SOCK` for that of the environment, `$NAME` for one
        of another name, `none` for no agent. `only`: the public keys that may be offered, None for
        all. Raises SSHException.
        """
        super().__init__()
        self._only = only
        variable = path.removeprefix("$") if path.startswith("$") else _BY_DEFAULT
        place = os.environ.get(variable, "") if path in ("", _BY_DEFAULT, f"${variable}") else path
        line = socket.socket(socket.AF_UNIX)
        with suppress(OSError):
            line.connect(place)
            self._connect(line)  # type: ignore[attr-defined]  # paramiko's types leave it out
            return
        line.close()

    def get_keys(self) -> tuple[AgentKey, ...]:
        """Return the keys to offer."""
        keys: tuple[AgentKey, ...] = super().get_keys()
        return tuple(key for key in keys if self._only is None or key.asbytes() in self._only)

    def close(self) -> None:
        """Close the connection to the agent."""
        self._close()  # type: ignore[attr-defined]  # paramiko's types leave it out
