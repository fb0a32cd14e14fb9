"""The lease of a site's rollouts: who may cut over.

It is an open session with the control server's host, or without one with the first host of the
site. It ends with its holder, so that no lock is left behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from engine.run import NOTHING
from engine.session import Locked, Session
from fleet.shared.fleet import Fleet
from fleet.shared.last_rollout import how_far, last_known, lease_login
from inventory.errors import DerpfleetError

_PING_S = 15.0  # the host gives it to another after 60 s of silence
_POLL_S = 2.0


class RolloutLease:
    """A lease that is held. `number`: above all before it. `lines`: those of the last ledger."""

    def __init__(self, session: Session) -> None:
        """Take the lease with this session. Raises Locked."""
        self._session, self._lock, self._ended = session, threading.Lock(), threading.Event()
        self.number, self.lines = session.lease()

    def note(self, *lines: Mapping[str, Any], begins: bool = False) -> None:
        """Write lines to the ledger beside the lease. Raises Unreachable when it is lost."""
        with self._lock:
            self._session.note(*lines, begins=begins)

    def keep(self) -> None:
        """Say something now and then, until the end."""
        while not self._ended.wait(_PING_S):
            with self._lock:
                try:
                    self._session.ask(NOTHING)
                except DerpfleetError:
                    return  # the next note raises it

    def end(self) -> None:
        """Let go of it."""
        self._ended.set()


@contextmanager
def leased(fleet: Fleet, *, wait_s: int) -> Iterator[RolloutLease]:
    """Hold the lease inside the block. `wait_s`: how long to wait while another has it.

    Raises Locked, Unreachable.
    """
    login, until, waits = lease_login(fleet), time.monotonic() + wait_s, False
    while True:
        with fleet.session_for_reading(login, NOTHING) as session:
            try:
                lease = RolloutLease(session)
            except Locked as error:
                held = error
            else:
                fleet.report.doing(login.name, "")
                thread = threading.Thread(target=lease.keep, daemon=True)
                thread.start()
                try:
                    yield lease
                finally:
                    lease.end()
                return
        if time.monotonic() + _POLL_S > until:
            held.why = f"{_under_way(fleet)}; its lease ends with it"
            held.next = "wait for its end, or give --wait SECONDS"
            raise held
        if not waits:
            waits, words = True, f"{held.what}: {_under_way(fleet)}; waiting for up to {wait_s} s"
            fleet.report.emit(event="lease_held", host=login.name, text=words)
            fleet.report.line(login.name, "waiting", words)
        fleet.report.doing(login.name, "waiting for the lease of another rollout")
        time.sleep(_POLL_S)


def _under_way(fleet: Fleet) -> str:
    """Return in words what holds the lease, with the wave of that rollout where it is known."""
    last = last_known(fleet)
    far = f": {how_far(last[0])}" if last and not last[0].ended else ""
    return f"a rollout of this site is under way{far}"
