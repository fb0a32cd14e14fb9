"""The figures of all of the relay's processes.

Each writes its own beside its socket; the one asked adds them up.

For other things, such as who is connected, the processes ask each other.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from relay.core.counts import DISPOSITIONS, Counts
from relay.core.stats import TLS_VERSIONS, Rates, Stats, merge, snapshot
from relay.io.http_client import ClientRequest, HttpClient, HttpError

if TYPE_CHECKING:
    from relay.admission.admission import Admission
    from relay.core.stats import Tally
    from relay.core.switch import Switch
    from relay.io.arrival import Arrival
    from relay.io.link import Link
    from relay.io.loop import Loop
    from relay.io.stun_socket import StunSocket
    from relay.mesh.workers import Worker

WRITE_EVERY_S: Final = 2.0
RATES_EVERY_S: Final = 5.0
# With ten thousand clients a check delays all of them by 50 ms (measured).
CHECK_EVERY_S: Final = 60.0
ASK_WITHIN_S: Final = 2.0
MAX_PART: Final = 2**24  # bytes of one worker's answer


class Connections(Protocol):
    """The relay's clients, which are counted here."""

    loop: Loop
    switch: Switch
    tally: Tally
    admission: Admission
    arrivals: dict[Arrival, None]
    links: dict[int, Link]


class Census:
    """A reader of one relay's counters; with several workers, of those of all.

    `gauges` are those that only the caller knows.
    """

    def __init__(
        self,
        clients: Connections,
        stun: Collection[StunSocket],
        gauges: Callable[[], Mapping[str, float]],
        worker: Worker | None,
    ) -> None:
        self.worker = worker
        self.rates = Rates()
        self._clients = clients
        self._stun = stun
        self._gauges = gauges
        self._started_at = time.time()
        self._problems: list[str] = []
        self._checked_at = float("-inf")

    def own(self) -> Stats:
        """Return the figures of this process now."""
        clients = self._clients
        versions = Counter(link.tls_version for link in clients.links.values())
        labelled = {
            "admissions": clients.admission.counts.by_label(),
            "stun_addrfamily": {stun.family: stun.requests.success for stun in self._stun},
            "stun_requests": {
                disposition: sum(getattr(stun.requests, disposition) for stun in self._stun)
                for disposition in DISPOSITIONS
            },
            "tls_active_version": {version: versions[version] for version in TLS_VERSIONS},
        }
        gauges = {
            "process_start_unix_time": self._started_at,
            "uptime_sec": int(time.time() - self._started_at),
            "handshakes": len(clients.arrivals),
            "current_file_descriptors": _count_descriptors(),
            **self._gauges(),
        }
        stats = snapshot(clients.switch, clients.tally, gauges, self._check(), labelled)
        stats.counters.stun_silenced = sum(stun.silenced for stun in self._stun)
        return stats

    def _check(self) -> list[str]:
        """Return the last consistency check's problems. `/debug/check` always makes a new one."""
        now = self._clients.loop.time()
        if now - self._checked_at >= CHECK_EVERY_S:
            self._checked_at, self._problems = now, self._clients.switch.consistency_check()
        return self._problems

    def all(self) -> Stats:
        """Return the figures of all workers. The others' are up to WRITE_EVERY_S old."""
        return merge([self.own(), *self._others()]) if self.worker is not None else self.own()

    def totals(self) -> Counts:
        """Return the counters alone, of all workers, for a fraction of the work."""
        totals = self._clients.switch.totals()
        for part in self._others():
            totals.add(part.counters)
        return totals

    def _others(self) -> Iterator[Stats]:
        worker = self.worker
        if worker is None:
            return
        for number in worker.others:
            with suppress(OSError, ValueError):  # it is just being started
                yield Stats.from_json(json.loads(worker.stats_path(number).read_bytes()))

    async def keep_writing(self) -> None:
        """Write the figures for the other workers, until cancelled."""
        worker = self.worker
        while worker is not None:
            path = worker.stats_path(worker.number)
            new = path.with_suffix(".new")
            # A full disk, no descriptor left; the parent sees how old the last ones are.
            with suppress(OSError):
                new.write_text(json.dumps(self.own().to_json()), "ascii")
                new.replace(path)
            await asyncio.sleep(WRITE_EVERY_S)

    async def keep_rates(self) -> None:
        """Remember a minute of totals, until cancelled."""
        while True:
            self.rates.note(self._clients.loop.time(), self.totals())
            await asyncio.sleep(RATES_EVERY_S)


def _count_descriptors() -> int:
    """Return the number of open file descriptors of this process.

    Looking takes one. When there is none left, all that are allowed are open.
    """
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (the names are enough)
    except OSError:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def ask_others(worker: Worker, target: str) -> list[Any]:
    """Return the other workers' answers to a path and query, as JSON.

    A worker that does not answer in time is left out.
    """
    said = await asyncio.gather(*(_ask(worker.socket_path(number), target) for number in worker.others))
    return [document for document in said if document is not None]


async def _ask(path: str, target: str) -> Any:
    client = HttpClient(unix_path=path)
    try:
        response = await client.send(
            ClientRequest("GET", f"http://worker{target}", max_body=MAX_PART), ASK_WITHIN_S
        )
        return json.loads(response.body) if response.status == 200 else None
    except (HttpError, ValueError):
        return None
    finally:
        client.close()
