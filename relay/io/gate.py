"""Admission as a connection asks for it: a gate that decides on one client."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from relay.core.reasons import Answer


class Verdict(Protocol):
    """A gate's decision on a client."""

    @property
    def allowed(self) -> bool:
        """Whether the client may stay."""

    @property
    def reason(self) -> Answer:
        """Return the reason."""

    @property
    def detail(self) -> str:
        """Return details for the log."""


class Gate(Protocol):
    """The part that decides whether a client is admitted."""

    @property
    def is_open(self) -> bool:
        """Whether every client is admitted."""

    async def admit(self, key: bytes, address: str, wanted: Callable[[], bool]) -> Verdict:
        """Decide on one client. `wanted` is whether it still waits."""
