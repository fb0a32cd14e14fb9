"""The lab's one error."""

from __future__ import annotations

from inventory.errors import DerpfleetError


class LabError(DerpfleetError):
    """The lab cannot do the requested step."""

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.what, self.where, self.why, self.next)))
