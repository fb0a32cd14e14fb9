"""systemd's small protocols: sockets handed over, notices of readiness, the watchdog.

Without systemd nothing happens. Sources: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

FIRST_FD = 3


def take_sockets(environ: MutableMapping[str, str], pid: int) -> list[tuple[str, socket.socket]]:
    """Return the sockets that systemd passed to this process, each with its name.

    The name is FileDescriptorName=, or "". They are set non-blocking and close-on-exec, and the
    variables are taken out of `environ`, so that no child takes the descriptors for its own. Raises
    OSError if one of them is no socket.
    """
    count, names = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_FDNAMES", "").split(":")
    if environ.pop("LISTEN_PID", "") != str(pid) or not count.isdecimal():
        return []
    sockets = []
    for index in range(int(count)):
        handed = socket.socket(fileno=FIRST_FD + index)
        handed.setblocking(False)
        handed.set_inheritable(False)
        sockets.append((names[index] if index < len(names) else "", handed))
    return sockets


class Notifier:
    """Notices of this service's state for systemd.

    None are sent where NOTIFY_SOCKET is not set. A failure is never an error.
    """

    def __init__(self, address: str = "") -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def send(self, **variables: str) -> None:
        """Send any assignment, e.g. STATUS="12 clients". Line breaks in values become blanks."""
        if not self._address:
            return
        text = "\n".join(f"{name}={' '.join(value.splitlines())}" for name, value in variables.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            s.setblocking(False)  # a stuck manager must not stop the relay
            s.sendto(text.encode(), self._address)

    def ready(self, status: str = "") -> None:
        """Report that the service has started, or has done reloading."""
        self.send(READY="1", **({"STATUS": status} if status else {}))

    def reloading(self) -> None:
        """Report that a reload begins; `ready` ends it."""
        self.send(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))

    def stopping(self, status: str = "") -> None:
        self.send(STOPPING="1", **({"STATUS": status} if status else {}))

    def status(self, text: str) -> None:
        """Report one line for `systemctl status`."""
        self.send(STATUS=text)

    def alive(self) -> None:
        """Report to the watchdog that the service is alive."""
        self.send(WATCHDOG="1")


def watchdog_interval_s(environ: MutableMapping[str, str], pid: int) -> float:
    """Return how often to call `Notifier.alive`: half of systemd's limit. 0 = no watchdog."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    limit_us = environ.get("WATCHDOG_USEC", "")
    return int(limit_us) / 2e6 if limit_us.isdecimal() else 0.0
