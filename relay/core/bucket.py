"""Token buckets, and the rate limits of one client.

Time is an argument (seconds of a monotonic clock); no I/O.

A limit slows, it does not drop. `take` returns how long the reader is to pause, and TCP's
back-pressure slows the sender, as in derper (`derpserver.rateLimit`). A frame costs its length
field, at most 65,568 of it, so that every frame passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from relay.golang.json import parse_object

MIN_BURST: Final = 65_568  # 65,536 + 32: the largest frame that an ordinary client may send


class Bucket:
    """`rate` tokens per second, at most `burst` of them saved up; full at first."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at = now

    def _fill(self, now: float) -> None:
        if now > self._at:  # a clock that jumps back gives nothing and takes nothing
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now

    def take(self, amount: float, now: float) -> float:
        """Take tokens, even missing ones, and return the seconds to wait until they are there.

        More than `burst` costs `burst`.
        """
        self._fill(now)
        self._tokens -= min(amount, self.burst)
        return -self._tokens / self.rate if self._tokens < 0 else 0.0

    def allow(self, now: float) -> bool:
        """Take one token if there is one, and return whether there was."""
        self._fill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True)
class RateConfig:
    """The content of `-rate-config`: limits of each client that is no mesh peer.

    A rate of 0 is no limit.

    The byte limits are derper's; the packet limits are ours.
    """

    bytes_per_s: int = 0
    burst_bytes: int = 0
    packets_per_s: int = 0
    burst_packets: int = 0

    def limiter(self, now: float) -> Limiter | None:
        """Return one client's limiter, or None if nothing is limited."""
        buckets = (
            Bucket(self.bytes_per_s, self.burst_bytes, now) if self.bytes_per_s else None,
            Bucket(self.packets_per_s, self.burst_packets, now) if self.packets_per_s else None,
        )
        return Limiter(*buckets) if any(buckets) else None


_FIELDS = {
    "PerClientRateLimitBytesPerSec": "bytes_per_s",
    "PerClientRateBurstBytes": "burst_bytes",
    "PerClientRateLimitPacketsPerSec": "packets_per_s",
    "PerClientRateBurstPackets": "burst_packets",
}


def parse_rate_config(data: bytes) -> RateConfig:
    """Parse the JSON of `-rate-config`. Bursts are raised to the least that lets every frame pass.

    Raises ValueError.
    """
    document = parse_object(data)
    values = {field: document.get(name.lower(), 0) for name, field in _FIELDS.items()}
    for name, field in _FIELDS.items():
        if type(values[field]) is not int or not 0 <= values[field] < 2**64:
            raise ValueError(f"{name} is not a whole number from 0 to 2^64 - 1")
    values["burst_bytes"] = max(values["burst_bytes"], MIN_BURST) if values["bytes_per_s"] else 0
    values["burst_packets"] = max(values["burst_packets"], 1) if values["packets_per_s"] else 0
    return RateConfig(**values)


class Limiter:
    """One client's buckets for bytes and packets; either may be None.

    Make a new one when the configuration changes.
    """

    __slots__ = ("_bytes", "_packets")

    def __init__(self, by_bytes: Bucket | None, by_packets: Bucket | None) -> None:
        self._bytes = by_bytes
        self._packets = by_packets

    def take(self, length: int, frames: int, now: float) -> float:
        """Account for frames whose length fields add up to `length`.

        Return the seconds to pause before reading on.
        """
        wait = self._bytes.take(length, now) if self._bytes else 0.0
        return max(wait, self._packets.take(frames, now)) if self._packets else wait
