"""Admission as a connection asks for it: a gate that decides on one client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from relay.core.reasons import Answer


@dataclass(frozen=True)
class Verdict:
    """A gate's decision on a client.

    `clear` is False where the program that knows could not be asked. `detail` is for the log.
    """

    allowed: bool
    reason: Answer
    clear: bool = True
    detail: str = ""


class Gate(Protocol):
    """The part that decides whether a client is admitted."""

    @property
    def is_open(self) -> bool:
        """Whether every client is admitted."""

    async def admit(self, key: bytes, address: str, wanted: Callable[[], bool]) -> Verdict:
        """Decide on one client. `wanted` is whether it still waits."""
