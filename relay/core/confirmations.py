"""The confirmations of the other workers that they know a client. No I/O, no clock.

A client hears that it is admitted when every worker knows it. Otherwise the first packet to it
could be dropped by a worker that has not heard of it. A PING follows the news, and its PONG
confirms everything before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from relay.core.peer import Member
from relay.core.wire import pack_ping


class Confirmations:
    """The questions that other workers have not answered yet."""

    def __init__(self) -> None:
        self._asked = 0
        # Number of the question -> who has not answered, and what is to be done then.
        self._open: dict[int, tuple[set[Member], Callable[[], None]]] = {}

    def ask(self, siblings: Iterable[Member], then: Callable[[], None]) -> int:
        """Ask other workers whether they know all that was sent to them.

        `then` is called when each of them has answered or is gone; at once if there are none.
        Returns the question's number, or 0.
        """
        missing = set(siblings)
        if not missing:
            then()
            return 0
        self._asked += 1
        self._open[self._asked] = missing, then
        for sibling in missing:
            sibling.outbox.control(pack_ping(self._asked.to_bytes(8, "big")))
        return self._asked

    def confirm(self, sibling: Member, data: bytes) -> None:
        """Note an answer. `data` is that of the PONG."""
        self._cross_off(sibling, int.from_bytes(data, "big"))

    def forget(self, sibling: Member) -> None:
        """Wait no longer for a worker that is gone."""
        for number in [*self._open]:
            self._cross_off(sibling, number)

    def give_up(self, number: int) -> None:
        """Go on without the missing answers, if there are any: a worker may hang."""
        if number in self._open:
            self._open.pop(number)[1]()

    def _cross_off(self, sibling: Member, number: int) -> None:
        if number in self._open:
            missing, _ = self._open[number]
            missing.discard(sibling)
            if not missing:
                self.give_up(number)
