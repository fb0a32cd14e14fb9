"""The parts of a proof. Frozen data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

T_co = TypeVar("T_co", covariant=True)
Status = Literal["ok", "failed", "skipped"]

LADDER: Mapping[str, str] = {
    "name": "name",
    "tcp": "TCP, https port",
    "tcp80": "TCP, http port",
    "stun4": "STUN, IPv4",
    "stun6": "STUN, IPv6",
    "tls": "TLS",
    "probe": "/derp/probe",
    "generate_204": "/generate_204",
    "upgrade": "upgrade",
    "handshake": "handshake",
    "admission": "admission",
    "packets": "packets",
    "idle": "idle hold",
    "map": "served map",
}
"""The rungs in order: id -> title for people. The ids are stable: they are in the JSON."""


class Broken(Exception):
    """A rung does not hold.

    `detail`: the observation. `cause`: why, in words. `next`: the command or step to take.

    `inconclusive`: it may be the consequence of a later rung's fault, which then is the one to fix.
    `data`: the rung's, with JSON types only.
    """

    def __init__(
        self,
        detail: str,
        *,
        cause: str,
        next: str,
        inconclusive: bool = False,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.cause = cause
        self.next = next
        self.inconclusive = inconclusive
        self.data = data or {}


class Skip(Exception):
    """A rung that cannot or need not be climbed here; the text says why."""


@dataclass(frozen=True)
class Found(Generic[T_co]):
    """A rung that holds: a value for the next rungs, a line for people, figures for machines."""

    value: T_co
    detail: str
    warning: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rung:
    """One step of the ladder. `detail`: the observation. `warning`: holds today, will not for long.

    `cause`, `next`: when it failed. `ms` is its duration in milliseconds. `data`: JSON types only.
    """

    name: str
    status: Status
    detail: str = ""
    cause: str = ""
    next: str = ""
    warning: str = ""
    ms: float = 0.0
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The rung's name for people."""
        return LADDER[self.name]


@dataclass(frozen=True)
class Proof:
    """All rungs of one relay, in the ladder's order.

    `ms`: wall time of the whole; `at`: its start, RFC 3339, UTC.
    """

    target: str
    address: str
    rungs: tuple[Rung, ...]
    ms: float
    at: str

    @property
    def ok(self) -> bool:
        """Whether no rung is broken and the relay was reached at all."""
        return self.failed_rung is None and self["handshake"].status == "ok"

    @property
    def failed_rung(self) -> Rung | None:
        """The first broken rung: the one to fix first."""
        return next((rung for rung in self.rungs if rung.status == "failed"), None)

    @property
    def packets_passed(self) -> bool:
        """Whether two clients exchanged packets.

        False on a relay that verifies and admits no key of the prover.
        """
        return self["packets"].status == "ok"

    def __getitem__(self, name: str) -> Rung:
        return next(rung for rung in self.rungs if rung.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object: target, address, at, ok, packets_passed, failed (a rung's name or
        null), ms, rungs."""
        failed = self.failed_rung
        return {
            "target": self.target,
            "address": self.address,
            "at": self.at,
            "ok": self.ok,
            "packets_passed": self.packets_passed,
            "failed": failed.name if failed else None,
            "ms": round(self.ms, 1),
            "rungs": [asdict(rung) | {"ms": round(rung.ms, 1)} for rung in self.rungs],
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Proof:
        """Read the proof that `to_json` wrote. Raises KeyError, TypeError for anything else."""
        rungs = tuple(Rung(**rung) for rung in kept["rungs"])
        return cls(kept["target"], kept["address"], rungs, kept["ms"], kept["at"])


def with_rung(proof: Proof, rung: Rung) -> Proof:
    """Return the proof with that rung, which was climbed beside the ladder or after it."""
    return replace(proof, rungs=tuple(rung if each.name == rung.name else each for each in proof.rungs))


def milliseconds(value: float) -> str:
    """Format with two significant digits below ten and no fraction from ten on: 0.42, 8.1, 104."""
    if value >= 10:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def duration(ms: float) -> str:
    """Format a duration: `8.1 ms`, `104 ms`, `1.3 s`."""
    return f"{milliseconds(ms)} ms" if ms < 1000 else f"{ms / 1000:.1f} s"
