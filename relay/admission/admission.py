"""The clients that may use the relay.

Those are all, or the keys of an allow file, or those that an admission controller or the local
tailscaled knows. The checks that are configured add up: a client must pass every one. Each answer
is a `Verdict` whose reason is counted.

`ask` is awaited during a client's handshake. A check that gets no clear answer refuses. With
`fail_open` transport errors and timeouts before the head of the controller's answer admit, and
nothing else does: any status but 200, and an answer that stalls, is a refusal, as in derper.

`revoked` finds connected clients that would be refused now. There an unclear answer changes
nothing, or a controller's restart would empty the relay; derper does not ask again at all.

Few questions are asked at once (turns.py), and none about a client that is gone before its turn.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from math import ceil
from typing import Final, Protocol
from weakref import WeakValueDictionary

from relay.admission.allow_file import PROBER_KIND, AllowFile
from relay.admission.turns import AT_ONCE, OF_ONE_NETWORK, Turns
from relay.config import Config
from relay.core.counts import Labelled
from relay.core.handshake import format_key
from relay.core.reasons import Answer
from relay.golang.json import parse_first_object
from relay.io.gate import Verdict
from relay.io.http_client import ClientRequest, HttpClient, HttpError, HttpTimeout
from relay.log import Log

LIMIT_S: Final = 5.0  # derper's, for the controller
MAX_ANSWER: Final = 4096  # derper's
MAX_WHOIS: Final = 1024 * 1024
MAX_CACHED: Final = 10_000
TICK_S: Final = 1.0
TAILSCALED_SOCKET: Final = "/var/run/tailscale/tailscaled.sock"


OPEN: Final = Verdict(True, Answer.OPEN)
PROBER: Final = Verdict(True, Answer.IN_PROBER_KEYS)
NOT_ASKED: Final = Verdict(False, Answer.NOT_ASKED, clear=False)
LOG: Final = Log("admission")


def _always() -> bool:
    return True


class Check(Protocol):
    """One of the checks that must agree.

    `wanted` is whether the client still waits for the answer.
    """

    async def ask(self, key: bytes, address: str, wanted: Callable[[], bool] = _always) -> Verdict: ...


class AllowFileCheck:
    """A check that the key is in the file."""

    def __init__(self, file: AllowFile) -> None:
        self._file = file

    async def ask(self, key: bytes, address: str, wanted: Callable[[], bool] = _always) -> Verdict:
        return (
            Verdict(True, Answer.IN_ALLOW_FILE)
            if self._file.allows(key)
            else Verdict(False, Answer.NOT_IN_ALLOW_FILE)
        )


class UrlCheck:
    """A check with the admission controller (headscale's /verify, or any).

    The question is derper's `tailcfg.DERPAdmitClientRequest`.
    """

    def __init__(self, url: str, *, fail_open: bool = False, client: HttpClient | None = None) -> None:
        self._url = url
        self._fail_open = fail_open
        self._client = client or HttpClient()

    async def ask(self, key: bytes, address: str, wanted: Callable[[], bool] = _always) -> Verdict:
        body = json.dumps({"NodePublic": format_key(key), "Source": address}, separators=(",", ":")).encode()
        request = ClientRequest("POST", self._url, body, (("Content-Type", "application/json"),), MAX_ANSWER)
        try:
            response = await self._client.send(request, LIMIT_S)
        except HttpError as e:
            if self._fail_open and not e.answered:
                return Verdict(True, Answer.VERIFY_URL_FAILED_OPEN, clear=False, detail=str(e))
            reason = (
                Answer.VERIFY_URL_TIMEOUT if isinstance(e, HttpTimeout) else Answer.VERIFY_URL_UNREACHABLE
            )
            return Verdict(False, reason, clear=False, detail=str(e))
        if response.status != 200:
            return Verdict(False, Answer.VERIFY_URL_STATUS, clear=False, detail=f"HTTP {response.status}")
        allow = _parse_allow(response.body)
        if allow is None:
            return Verdict(False, Answer.VERIFY_URL_BAD_ANSWER, clear=False)
        return (
            Verdict(True, Answer.VERIFY_URL_ALLOWED) if allow else Verdict(False, Answer.VERIFY_URL_REFUSED)
        )


def _parse_allow(body: bytes) -> bool | None:
    """Return `Allow` of `{"Allow": true}` in any letter case, or False if it is missing.

    Return None if the answer is something else.
    """
    try:
        allow = parse_first_object(body).get("allow", False)
    except ValueError:
        return None
    return allow if isinstance(allow, bool) else None


class TailscaledCheck:
    """A check that the tailscaled of this host knows the node.

    It asks `/localapi/v0/whois` on its unix socket; only found or not counts.
    """

    def __init__(self, socket_path: str = "", *, client: HttpClient | None = None) -> None:
        self._client = client or HttpClient(unix_path=socket_path or TAILSCALED_SOCKET)

    async def ask(self, key: bytes, address: str, wanted: Callable[[], bool] = _always) -> Verdict:
        url = f"http://local-tailscaled.sock/localapi/v0/whois?addr={format_key(key).replace(':', '%3A')}"
        try:
            response = await self._client.send(
                ClientRequest("GET", url, headers=(("Tailscale-Cap", "145"),), max_body=MAX_WHOIS), LIMIT_S
            )
        except HttpError as e:
            return Verdict(False, Answer.TAILSCALED_UNREACHABLE, clear=False, detail=str(e))
        if response.status == 200:
            return Verdict(True, Answer.TAILSCALED_KNOWN)
        if response.status == 404:
            return Verdict(False, Answer.TAILSCALED_UNKNOWN)
        old = response.status == 400 and b"addr" in response.body
        detail = "this tailscaled is too old to look up node keys" if old else f"HTTP {response.status}"
        return Verdict(False, Answer.TAILSCALED_ERROR, clear=False, detail=detail)


class Cached:
    """A check that is asked once at a time for each key.

    Its clear answers are remembered for `for_s` seconds.
    """

    def __init__(self, check: Check, for_s: float, turns: Turns | None = None) -> None:
        self._check = check
        self._for_s = for_s
        self._turns = turns or Turns()
        self._answers: dict[tuple[bytes, str], tuple[float, Verdict]] = {}
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def ask(self, key: bytes, address: str, wanted: Callable[[], bool] = _always) -> Verdict:
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self._answers.get((key, address))
            if known:
                answered_at, verdict = known
                # An answer that came while this client waited is as good as its own, clear or
                # not.
                if answered_at >= asked_at or (verdict.clear and clock() < answered_at + self._for_s):
                    return verdict
            async with self._turns.take(address):
                if not wanted():
                    return NOT_ASKED
                verdict = await self._check.ask(key, address, wanted)
            self._answers.pop((key, address), None)
            if len(self._answers) >= MAX_CACHED:
                del self._answers[next(iter(self._answers))]  # the oldest
            self._answers[key, address] = clock(), verdict
            return verdict


class Admission:
    """All the checks together. `counts` has how often each answer was given."""

    def __init__(
        self,
        checks: Sequence[Check],
        *,
        allow_file: AllowFile | None = None,
        probers: AllowFile | None = None,
        recheck_s: float = 0.0,
    ) -> None:
        self._checks = tuple(checks)
        self._allow_file = allow_file
        self._probers = probers  # keys that are admitted without a question
        self._recheck_s = recheck_s
        self.counts = Labelled(Answer)

    @property
    def is_open(self) -> bool:
        """Whether every client is admitted, so that none needs to wait for `admit`."""
        return not self._checks

    async def admit(self, key: bytes, address: str, wanted: Callable[[], bool] = _always) -> Verdict:
        """Decide on a client, by its 32-byte node key and its address as text.

        Mesh peers need no answer. One that is not `wanted` any more is not asked for.
        """
        verdict = await self._ask_all(key, address, wanted)
        self.counts.add(verdict.reason)
        return verdict

    async def revoked(
        self, connected: Callable[[], Iterable[tuple[bytes, str]]]
    ) -> AsyncIterator[tuple[bytes, str, Verdict]]:
        """Yield connected clients (key, address) that are refused now, with the verdict.

        It runs until it is closed. A changed allow file is applied to every client within a second.
        The other checks are asked about every client once in `recheck_s` seconds, spread over that
        time.
        """
        clock = asyncio.get_running_loop().time
        generation = self._allow_file.generation if self._allow_file else 0
        queue: deque[tuple[bytes, str]] = deque()
        share = 0
        next_round = clock() + self._recheck_s
        while self._checks:
            await asyncio.sleep(TICK_S)
            batch: list[tuple[bytes, str]] = []
            if self._allow_file:
                self._allow_file.refresh()
                if self._allow_file.generation != generation:
                    generation = self._allow_file.generation
                    # Each is asked about in the usual way: it may be a prober.
                    batch = [client for client in connected() if not self._allow_file.allows(client[0])]
            if self._recheck_s and not queue and clock() >= next_round:
                next_round = clock() + self._recheck_s
                queue.extend(connected())
                share = ceil(len(queue) * TICK_S / self._recheck_s)
            batch += [queue.popleft() for _ in range(min(share, len(queue)))]
            verdicts = await asyncio.gather(*(self._ask_all(*client) for client in batch))
            for (key, address), verdict in zip(batch, verdicts, strict=True):
                if not verdict.allowed and verdict.clear:
                    self.counts.add(Answer.REVOKED)
                    yield key, address, verdict

    async def _ask_all(self, key: bytes, address: str, wanted: Callable[[], bool] = _always) -> Verdict:
        if self._probers is not None and self._probers.allows(key):
            return PROBER
        verdict = OPEN
        for check in self._checks:
            try:
                verdict = await check.ask(key, address, wanted)
            except Exception as error:  # what one answer sets off must not end the asking about all
                LOG.unforeseen("an admission check failed", error)
                verdict = Verdict(False, Answer.CHECK_FAILED, clear=False)
            if not verdict.allowed:
                break
        return verdict


def from_config(config: Config) -> Admission:
    """Return the checks that the flags ask for. Raises AllowFileError."""
    allow_file = AllowFile(config.allow_file) if config.allow_file else None
    checks: list[Check] = [AllowFileCheck(allow_file)] if allow_file else []  # the cheapest first
    # Workers share the bounds, because they ask the same program.
    bounds = [max(1, most // config.workers) for most in (AT_ONCE, OF_ONE_NETWORK)]
    if config.verify_clients:
        checks.append(Cached(TailscaledCheck(config.socket), config.verify_cache_s, Turns(*bounds)))
    if config.verify_client_url:
        checks.append(
            Cached(
                UrlCheck(config.verify_client_url, fail_open=config.verify_client_url_fail_open),
                config.verify_cache_s,
                Turns(*bounds),
            )
        )
    probers = AllowFile(config.prober_keys, PROBER_KIND) if config.prober_keys else None
    return Admission(checks, allow_file=allow_file, probers=probers, recheck_s=config.verify_recheck_s)
