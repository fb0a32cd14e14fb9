"""ProxyCommand of ~/.ssh/config: a program whose input and output are the connection to a host."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress

ENDS_S = 1.0  # for the program to end once its connection is closed
_WORDS_MAX = 2000


class ProxyLine(socket.socket):
    """Our end of a connection to the program, which the user's shell starts, as with ssh.

    paramiko's own class spins on the CPU when the program has ended, and knows no shell.
    """

    def __init__(self, command: str) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self.command = command
        self._failure = ""
        self._lock = threading.Lock()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the connection
        shell = os.environ.get("SHELL") or "/bin/sh"
        try:
            self._program = subprocess.Popen(
                [shell, "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._words.fileno(),
            )
        except BaseException:
            self._words.close()
            super().close()
            raise
        finally:
            theirs.close()

    @property
    def failure(self) -> str:
        """Why the program ended by itself: its words on standard error, or its status; else ""."""
        with self._lock:
            if self.fileno() >= 0:
                self._look()
            return self._failure

    def close(self) -> None:
        """Close the connection, and end the program. May be called twice, by any thread."""
        with self._lock:
            if self.fileno() >= 0:
                self._look()
            super().close()
            try:
                self._program.wait(ENDS_S)
            except subprocess.TimeoutExpired:
                self._program.kill()
                self._program.wait()
            self._words.close()

    def _look(self) -> None:
        """Keep the failure, if the program has ended by itself."""
        try:
            if self.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                return
        except (BlockingIOError, TimeoutError):
            return
        except OSError:  # it ended without reading all
            pass
        with suppress(subprocess.TimeoutExpired):
            if self._program.wait(ENDS_S):
                self._words.seek(0)
                words = self._words.read(_WORDS_MAX).decode(errors="replace").strip()
                self._failure = words or f"it ended with status {self._program.returncode}"
