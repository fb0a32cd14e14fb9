"""The ladder: climbs every rung that can be climbed and says which is broken first.

Rungs that do not need each other are climbed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from control.served import Map, Unknown
from probe.certificate import Chain
from probe.derp import check_upgrade, ends
from probe.derpmap import map_rung
from probe.handshake import check_handshake
from probe.lateness import Lateness, starved
from probe.name import Addresses, check_name, stated
from probe.net import BoundedStream, NoRoute, Patience
from probe.packets import check_idle, check_packets
from probe.proof import LADDER, Broken, Found, Proof, Rung, Skip
from probe.stun import check_stun
from probe.target import Target
from probe.tcp import Dialled, check_tcp, dialling
from probe.tls import check_tls
from probe.web import authority, check_generate_204, check_probe

T = TypeVar("T")
OnRung = Callable[[Rung], None]


async def verify(
    target: Target,
    *,
    thorough: bool = False,
    served: Mapping[str, Any] | None = None,
    on_rung: OnRung | None = None,
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> Proof:
    """Climb the ladder at one relay. Raises nothing for a broken relay: the proof says so.

    `thorough` adds the idle hold of 70 s. `served` is the DERP map that headscale serves, decoded.
    `on_rung` is called with each rung as soon as it is known, not always in the ladder's order.
    """
    return await _Climb(target, thorough, on_rung, patience).all_the_way(served)


def prove(
    targets: Iterable[Target],
    *,
    thorough: bool = False,
    served: Mapping[str, Any] | None = None,
    on_rung: Callable[[Target, Rung], None] | None = None,
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> list[Proof]:
    """Run `verify` for all targets at the same time, from code that is not asynchronous.

    Proofs are in their order.
    """

    def reporter(target: Target) -> OnRung | None:
        return None if on_rung is None else partial(on_rung, target)

    async def all_at_once() -> list[Proof]:
        work = (
            verify(each, thorough=thorough, served=served, on_rung=reporter(each), patience=patience)
            for each in targets
        )
        return list(await asyncio.gather(*work))

    return asyncio.run(all_at_once())


class _Climb:
    """One climb: times each rung, keeps its result, and goes on wherever the rungs below hold."""

    def __init__(self, target: Target, thorough: bool, on_rung: OnRung | None, patience: Patience) -> None:
        self._target = target
        self._thorough = thorough
        self._on_rung = on_rung
        self._patience = patience
        self._rungs: dict[str, Rung] = {}
        self._inconclusive: set[str] = set()
        self._lateness = Lateness()

    async def all_the_way(self, served: Mapping[str, Any] | None) -> Proof:
        """Climb the whole ladder.

        In round trips, for a healthy relay: 1 look-up, 1 TCP, 1 TLS, beside which the clients dial.
        Then DERP, beside /derp/probe: 1 TLS, 1 upgrade, 1 handshake, and about 4 for the packets:
        those of 64 KiB need TCP's slow start, up and down.
        """
        target, began, at = self._target, time.perf_counter(), datetime.now(UTC)
        measuring = asyncio.create_task(self._lateness.measure())
        named = await self._rung("name", check_name(target, self._patience))
        where = named.value if named else stated(target)
        if where.all:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._stun("stun4", where.ipv4))
                group.create_task(self._stun("stun6", where.ipv6))
                group.create_task(self._port_80(where))
                group.create_task(self._https(where))
        measuring.cancel()
        self._skip("only the relay's own host can be asked whom it admits", "admission")
        self._keep(
            map_rung(
                target,
                Unknown("no map given to compare with") if served is None else Map(served),
                self._rungs,
            )
        )
        return Proof(
            target=target.name,
            address=authority(target.domain, target.https_port, 443),
            rungs=self._in_order(),
            ms=(time.perf_counter() - began) * 1000,
            at=at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        )

    async def _rung(self, name: str, work: Awaitable[Found[T]]) -> Found[T] | None:
        began, late_s = time.perf_counter(), self._lateness.total_s
        found = None
        try:
            found = await work
            rung = Rung(name, "ok", found.detail, warning=found.warning, data=found.data)
        except (Skip, NoRoute) as reason:
            rung = Rung(name, "skipped", str(reason))
        except Broken as broken:
            rung = Rung(name, "failed", broken.detail, cause=broken.cause, next=broken.next, data=broken.data)
            if broken.inconclusive:
                self._inconclusive.add(name)
        except OSError as error:
            detail = error.strerror or str(error) or type(error).__name__
            rung = Rung(name, "failed", detail, cause="the connection failed", next=self._target.again)
        took_s = time.perf_counter() - began
        busy = starved(self._lateness.total_s - late_s, took_s)
        if busy and rung.status == "failed":
            # Each time limit here and at the relay may have passed unused.
            self._inconclusive.discard(name)
            step = f"let this machine do less at once, then {self._target.again}"
            step += f"; if that fails as well: {rung.next}"
            rung = replace(rung, cause=f"{busy}; else: {rung.cause}", next=step)
        self._keep(replace(rung, ms=took_s * 1000))
        return found

    def _skip(self, why: str, *names: str) -> None:
        for name in names:
            self._keep(Rung(name, "skipped", why))

    def _keep(self, rung: Rung) -> None:
        self._rungs[rung.name] = rung
        if self._on_rung is not None:
            self._on_rung(rung)

    def _in_order(self) -> tuple[Rung, ...]:
        """Return the whole ladder; a rung that was never tried is skipped because of the broken
        rung that it needs."""
        for name in LADDER:
            if name not in self._rungs:
                self._skip(f"needs {_needed(name, self._rungs)}", name)
        front = next(
            (
                LADDER[name]
                for name in ("tcp", "tls", "probe", "upgrade")
                if self._rungs[name].status == "failed"
            ),
            "",
        )
        for name in self._inconclusive if front else ():
            why = (
                "no answer, which proves nothing yet: a relay whose front is "
                f"broken keeps silent, see {front}"
            )
            self._rungs[name] = replace(self._rungs[name], status="skipped", detail=why, cause="", next="")
        clocks = self._rungs["probe"].warning
        for name in self._inconclusive if clocks and not front else ():
            why = "with a wrong clock a relay takes its certificate for invalid, and does not answer STUN"
            cause = f"{clocks}: {why}"
            step = f"timedatectl set-ntp true on the relay's host, then {self._target.again}"
            self._rungs[name] = replace(self._rungs[name], cause=cause, next=step, data={})
        return tuple(self._rungs[name] for name in LADDER)

    async def _stun(self, name: str, address: str | None) -> None:
        if self._target.stun_port is None:
            self._skip("the relay offers no STUN", name)
        elif address is None:
            self._skip("the relay has no address of that family", name)
        else:
            await self._rung(name, check_stun(self._target, address, self._patience))

    async def _port_80(self, where: Addresses) -> None:
        port = self._target.http_port
        if port is None:
            self._skip("the relay offers no plain HTTP", "tcp80", "generate_204")
            return
        opened = await self._rung(
            "tcp80", self._needed_here(check_tcp(self._target, where.all, port, self._patience))
        )
        if opened is not None:
            address, connection = _first(opened.value)
            with contextlib.closing(await BoundedStream.over(connection)) as stream:
                check = check_generate_204(self._target, stream, address, port, self._patience)
                await self._rung("generate_204", self._needed_here(check))

    async def _needed_here(self, work: Awaitable[Found[T]]) -> Found[T]:
        """Skip instead of Broken: a relay we do not manage may leave port 80 closed if its map
        entry says so."""
        try:
            return await work
        except Broken as broken:
            if self._target.managed:
                raise
            raise Skip(f"{broken.detail}: right only if the map says canport80: false") from None

    async def _https(self, where: Addresses) -> None:
        port = self._target.https_port
        opened = await self._rung("tcp", check_tcp(self._target, where.all, port, self._patience))
        if opened is None:
            return
        clients = ends(self._target, tuple(opened.value))
        async with dialling(clients, port, self._target, self._patience) as dialled:
            await self._tls(*_first(opened.value), dialled)

    async def _tls(self, address: str, connection: socket.socket, dialled: Sequence[Dialled]) -> None:
        """Climb TLS and all that needs it. `dialled`: the connections of the proof's clients."""
        session = await self._rung("tls", check_tls(self._target, connection, address, self._patience))
        if session is None:
            return
        stream, chain = session.value
        with contextlib.closing(stream):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._rung("probe", check_probe(self._target, stream, self._patience)))
                group.create_task(self._derp(dialled, chain))

    async def _derp(self, dialled: Sequence[Dialled], chain: Chain) -> None:
        if not self._thorough:
            self._skip("only with --thorough", "idle")
        upgraded = await self._rung("upgrade", check_upgrade(self._target, dialled, chain, self._patience))
        if upgraded is None:
            return
        cast = upgraded.value
        try:
            admitted = await self._rung("handshake", check_handshake(self._target, cast, self._patience))
            if admitted is not None and not admitted.value:
                why = (
                    "the relay admits registered nodes only, and none of our keys; it is "
                    "proved that it refuses a stranger"
                )
                self._skip(why, "packets", *(["idle"] if self._thorough else []))
            elif admitted is not None:
                passed = await self._rung("packets", check_packets(self._target, cast.pair, self._patience))
                if passed is not None and self._thorough:
                    await self._rung("idle", check_idle(self._target, cast.pair, self._patience))
        finally:
            await cast.leave(self._patience)


def _first(opened: Mapping[str, socket.socket]) -> tuple[str, socket.socket]:
    """Return the first connection and close the others: they have shown that their family works."""
    (address, connection), *others = opened.items()
    for _, other in others:
        other.close()
    return address, connection


def _needed(name: str, rungs: Mapping[str, Rung]) -> str:
    """Return the title of the rung below that keeps `name` from being tried."""
    below = ("tcp80",) if name == "generate_204" else ("tcp", "tls", "upgrade", "handshake", "packets")
    return next(
        (LADDER[rung] for rung in below if rung in rungs and rungs[rung].status != "ok"), LADDER["name"]
    )
