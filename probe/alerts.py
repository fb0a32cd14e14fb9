"""The alerts of several looks at relays: edges, and repeats of what lasts. Pure.

An edge counts after several equal looks in a row. It is told once, and a broken relay again after
some hours. A relay that was never told as broken needs no all-clear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Seen:
    """A relay as it was seen now. `words`: its state for people."""

    host: str
    ok: bool
    words: str


@dataclass(frozen=True)
class Known:
    """The memory of one relay.

    `ok`: the last look; `looks`: how many in a row were equal to it. `told`: when it was last told
    as broken, in seconds since the epoch; 0 when it was not, or its all-clear was told as well.
    """

    ok: bool = True
    looks: int = 0
    told: float = 0.0


@dataclass(frozen=True)
class Alert:
    """A thing to tell. `repeats`: it was told before, and lasts."""

    host: str
    ok: bool
    words: str
    repeats: bool = False

    @property
    def text(self) -> str:
        """Return it as a sentence."""
        return f"{self.host} is {'still ' if self.repeats else ''}{self.words}"


def judged(
    known: Mapping[str, Known], seen: Sequence[Seen], *, after: int, repeat_s: float, now: float
) -> tuple[dict[str, Known], list[Alert]]:
    """Return the memory after this look, and the alerts to send.

    Hosts that were not looked at stay as they are. When an alert cannot be sent, the memory is that
    of `unsent`.
    """
    then, alerts = dict(known), []
    for one in seen:
        before = known.get(one.host, Known())
        looks = before.looks + 1 if before.ok == one.ok else 1
        told = before.told
        is_edge = looks >= after and (not told if not one.ok else bool(told))
        is_due = bool(told) and not one.ok and now - told >= repeat_s
        if is_edge or is_due:
            alerts.append(Alert(one.host, one.ok, one.words, repeats=is_due))
            told = 0.0 if one.ok else now
        then[one.host] = Known(one.ok, min(looks, after), told)
    return then, alerts


def unsent(
    known: Mapping[str, Known], then: Mapping[str, Known], alerts: Sequence[Alert]
) -> dict[str, Known]:
    """Return the memory when these alerts could not be sent: the next look sends them again."""
    untold = {alert.host: known.get(alert.host, Known()).told for alert in alerts}
    return {name: replace(one, told=untold.get(name, one.told)) for name, one in then.items()}


def to_json(known: Mapping[str, Known]) -> dict[str, Any]:
    """Return the memory as JSON has it."""
    return {name: asdict(one) for name, one in known.items()}


def from_json(said: Any) -> dict[str, Known]:
    """Read what `to_json` wrote. Raises ValueError, TypeError, KeyError, AttributeError."""
    return {
        str(name): Known(bool(one["ok"]), int(one["looks"]), float(one["told"])) for name, one in said.items()
    }
