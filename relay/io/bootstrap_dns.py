"""`/bootstrap-dns`: names that clients with broken DNS may ask a relay for.

Published names are given to every client, unpublished ones only to those that ask for them by name
(`?q=name`). The addresses are refreshed every ten minutes; when that fails, the last answer stays.
derper's staged roll-out by TXT record is not here: flags.py refuses it. Source:
cmd/derper/bootstrap_dns.go.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qs

from relay.core.counts import Counts
from relay.http.answers import BROWSER_HEADERS
from relay.http.http11 import Request, Response
from relay.log import Log

REFRESH_S: Final = 600.0
RESOLVE_S: Final = 60.0
_log = Log("bootstrap-dns")

Addresses = dict[str, list[str]]


class BootstrapDns:
    """The page, and the task that keeps it fresh. `counts` gets derper's counters."""

    def __init__(self, published: Iterable[str], unpublished: Iterable[str], counts: Counts) -> None:
        self._names = tuple(published)
        self._hidden_names = tuple(unpublished)
        self._published: Addresses = {}
        self._hidden: Addresses = {}
        self._counts = counts

    def page(self, request: Request) -> Response:
        """Return the published names, or the one unpublished name that is asked for."""
        self._counts.bootstrap_dns_requests += 1
        wanted = parse_qs(request.query).get("q", [""])[0]
        answer = self._published
        if self._hidden.get(wanted):
            self._counts.bootstrap_dns_unpublished_hits += 1
            answer = {wanted: self._hidden[wanted]}
        elif wanted in self._names:
            if self._published.get(wanted):
                self._counts.bootstrap_dns_published_hits += 1
            else:
                self._counts.bootstrap_dns_published_misses += 1
        elif wanted:
            self._counts.bootstrap_dns_unpublished_misses += 1
        # Such requests come from far away and once: a connection kept open would wait for nothing.
        headers = (*BROWSER_HEADERS, ("Content-Type", "application/json"), ("Connection", "close"))
        return Response(200, json.dumps(answer, indent="\t").encode(), headers)

    async def keep_fresh(self) -> None:
        """Resolve all names now and every ten minutes, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_S)

    async def refresh(self) -> None:
        """Resolve each name once; one that does not resolve keeps its last answer."""
        for names, addresses in ((self._names, self._published), (self._hidden_names, self._hidden)):
            for name in names:
                await self._resolve(name, addresses)

    async def _resolve(self, name: str, addresses: Addresses) -> None:
        resolving = asyncio.get_running_loop().getaddrinfo(name, 0, type=socket.SOCK_STREAM)
        try:
            found = await asyncio.wait_for(resolving, RESOLVE_S)
        except (OSError, UnicodeError, asyncio.TimeoutError) as e:
            why = e or type(e).__name__
            _log.warning("bootstrap name does not resolve, the last answer stays", name=name, why=why)
            return
        fresh = sorted({str(where[0]) for *_, where in found})
        random.shuffle(fresh)  # so that clients do not all prefer one family
        addresses[name] = fresh
