"""The end of each round of the loop: the outboxes are written. On the hot path, like link.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.core.reasons import Close

if TYPE_CHECKING:
    from relay.core.outbox import Outbox
    from relay.core.stats import Tally
    from relay.core.switch import Switch


class Tick:
    """Writes the outboxes at the end of each round, and ends the connections that are to end.

    `report` gets unexpected exceptions.
    """

    def __init__(
        self, clock: Callable[[], float], report: Callable[[Exception], None], switch: Switch, tally: Tally
    ) -> None:
        self._counts = switch.counts
        self._clock = clock
        self._report = report
        self._switch = switch
        self._tally = tally

    def flush(self) -> bool:
        """Write once per outbox that has bytes. Return whether some have more."""
        switch = self._switch
        if not switch.dirty and not switch.hangups:
            return False
        switch.backlog = 0
        outboxes = switch.dirty[:]
        switch.dirty.clear()
        self._counts.writes += len(outboxes)
        for outbox in outboxes:
            try:
                if outbox.special:
                    self._flush_special(outbox)
                    continue
                pending = outbox.pending
                if pending:
                    chunk = pending[0] if len(pending) == 1 else b"".join(pending)
                    pending.clear()
                    outbox.octets += len(chunk)
                    outbox.link.write(chunk)
            except Exception as error:  # the others' packets must leave
                self._report(error)
                outbox.link.end(Close.FAILED)
        while switch.hangups:
            session, reason = switch.hangups.popitem()
            session.outbox.link.end(reason)
        return bool(switch.dirty)

    def _flush_special(self, outbox: Outbox) -> None:
        if not outbox.writable:
            return  # it comes back with unblock()
        chunk, waited_s = outbox.take(self._clock())
        if waited_s:
            self._tally.note_queue_time(waited_s)
        if chunk:
            outbox.link.write(chunk)
        if outbox.waiting and outbox.writable:
            self._switch.dirty.append(outbox)
