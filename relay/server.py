"""The relay as a process: configuration, listeners, timers, reload and drain around the switch.

What a connection goes through is in front.py (until it is admitted) and link.py (after that).
"""

from __future__ import annotations

import asyncio
import hmac
import os
import ssl
import time
from collections.abc import Coroutine
from email.utils import formatdate
from heapq import heappop, heappush
from ipaddress import ip_address
from pathlib import Path
from random import uniform
from typing import Any, Final

from relay import admission, debug, http, metacert, selfsigned, systemd
from relay.addresses import AddressTable, Ticket, network_of
from relay.bucket import Bucket, RateConfig, parse_rate_config
from relay.channel import make_server_context
from relay.flags import Config
from relay.front import Front
from relay.goflag import split_host_port
from relay.handshake import ClientInfo, Introduction
from relay.keyfile import NodeKey, read_mesh_key, read_or_create_key
from relay.link import Link, Owner, Tick
from relay.listen import Listener, open_tcp, open_udp
from relay.log import Log
from relay.proxyproto import TrustedProxies
from relay.session import Session
from relay.stats import Rates, Stats, Tally, snapshot
from relay.switch import Switch
from relay.udp import StunSocket
from relay.wire import KEEP_ALIVE_FRAME, pack_restarting

KEEP_ALIVE_S: Final = 60.0
KEEP_ALIVE_JITTER_S: Final = 5.0
MESH_WRITE_TIMEOUT_S: Final = 30.0
SWEEP_S: Final = 0.5
CLOSES_PER_S: Final = 200.0  # while draining: what the next relay gets as new handshakes
TRY_FOR_S: Final = 30.0  # how long clients are to try again without calling it a failure


class Relay(Owner):
    """One relay process. `start`, then `run` until a signal ends it."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.loop = loop
        self.log = Log("server")
        self.key = NodeKey.generate() if config.dev else read_or_create_key(config.key_file)
        self.switch = Switch(loop.time, self.key.public)
        self.admission = admission.from_config(config)
        self.proxies = TrustedProxies(config.trusted_proxies)
        self.proxy_protocol = config.proxy_protocol
        self.addresses = AddressTable(
            connections=config.connections_per_address,
            handshakes=config.handshakes_per_address,
            handshakes_in_all=config.handshakes_in_flight,
        )
        self.handshake_timeout_s = config.handshake_timeout_s
        self.disallowed_app_names = frozenset(config.disallow_app_names)
        self.fronts: dict[Front, None] = {}  # in the order in which they came
        self.links: dict[int, Link] = {}  # by serial number
        self.tally = Tally()
        self.tick = Tick(loop, self.switch, self.tally)
        self.rates = Rates()
        self.front_ok = True
        self.offset_s = time.time() - loop.time()  # from the loop's clock to Unix time
        inside = debug.Inside(self.switch, self.read_stats, self.rates, self.offset_s, {"hostname": config.hostname})
        self.site = http.Site(
            public_key=self.key.public,
            date=lambda: formatdate(usegmt=True),
            client_of=self.proxies.client_of,
            derp=config.derp,
            home=config.home,
            pages=debug.make_pages(inside),
        )
        self.systemd = systemd.Notifier(os.environ.get("NOTIFY_SOCKET", ""))
        self.stun: list[StunSocket] = []
        self.listeners: list[Listener] = []
        self._context: ssl.SSLContext | None = None
        self._mesh_key = read_mesh_key(config.mesh_psk_file) if config.mesh_psk_file else None
        self._meta_certificate = metacert.pem_of(metacert.new_meta_cert(self.key.public, time.time()))
        self._rates = RateConfig()
        self._accepts = Bucket(config.accept_connection_limit, config.accept_connection_burst, loop.time())
        self._serial = 0
        self._started_at = time.time()
        self._tickets: dict[int, Ticket] = {}
        self._keep_alives: list[tuple[float, int]] = []  # heap of (due, serial)
        self._blocked: dict[Link, tuple[float, int]] = {}  # since when, with how many bytes in the transport
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = loop.create_future()
        self._full = False

    # Life.

    async def start(self) -> None:
        """Load what is configured and listen. Raises OSError, KeyFileError, ValueError with words for the operator."""
        config = self.config
        if config.serve_tls:
            if selfsigned.ensure_self_signed(config.cert_dir, config.hostname, time.time()):
                self._tell_pin()
            self._context = self._load_certificate()
        if config.rate_config:
            self._rates = parse_rate_config(Path(config.rate_config).read_bytes())
        handed = [sock for _, sock in systemd.take_sockets(os.environ, os.getpid())]
        host, port = config.listen
        for sock in open_tcp(host, port, config, handed):
            self.listeners.append(await self._listen(sock, http.answer, encrypted=config.serve_tls))
        if config.serve_tls and config.http_port >= 0:
            for sock in open_tcp(host, config.http_port, config, handed):
                self.listeners.append(await self._listen(sock, http.answer_plain, encrypted=False))
        if config.stun:
            self.stun = [StunSocket(self.loop, sock, self._is_silent) for sock in open_udp(host, config.stun_port, handed)]
        if config.metrics_listen:
            host, service = split_host_port(config.metrics_listen)
            for sock in open_tcp(host, int(service), config, handed):
                self.listeners.append(await self._listen(sock, http.answer, encrypted=False))
        for stray in handed:
            self.log.warning("systemd handed over a socket that no flag asks for", address=stray.getsockname())
            stray.close()
        if not self.admission.is_open:
            self.spawn(self._watch_admission())
        if interval_s := systemd.watchdog_interval_s(os.environ, os.getpid()):
            self.spawn(self._feed_watchdog(interval_s))
        self._sweep()
        self.log.info("listening", address=config.addr, tls=config.serve_tls, stun=config.stun_port if config.stun else "off")
        self.systemd.ready()

    async def run(self) -> None:
        """Serve until `stop`, then drain."""
        await self._stopping
        self.systemd.stopping("draining")
        await self._drain()

    def stop(self) -> None:
        """Drain and end; the second time, end at once."""
        if self._stopping.done():
            for link in [*self.links.values()]:
                link.end("stopped")
        else:
            self._stopping.set_result(None)

    def reload(self) -> None:
        """Read certificate and limits again; what cannot be read stays as it was, and the log says so."""
        self.systemd.reloading()
        try:
            if self.config.serve_tls:
                self._context = self._load_certificate()
            if self.config.rate_config:
                self._rates = parse_rate_config(Path(self.config.rate_config).read_bytes())
                self._apply_rates()
        except (OSError, ValueError) as error:
            self.tally.counts["reload_failures"] += 1
            self.log.error("reload failed, the old certificate and limits stay", error=error)
        else:
            self.tally.counts["reloads"] += 1
            self.log.info("reloaded")
        self.systemd.ready()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the connections; it is cancelled at the end."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def read_stats(self) -> Stats:
        """Everything that is counted, now."""
        tally = self.tally
        tally.counts["stun_silenced"] = sum(stun.silenced for stun in self.stun)
        for stun in self.stun:
            tally.labelled["stun_addrfamily", stun.family] = stun.requests["success"]
        for disposition in ("success", "not_stun", "read_error", "write_error"):
            tally.labelled["stun_requests", disposition] = sum(stun.requests[disposition] for stun in self.stun)
        for reason, count in self.admission.counts.items():
            tally.labelled["admissions", reason] = count
        gauges = {
            "process_start_unix_time": self._started_at,
            "handshakes": len(self.fronts),
            "front_ok": self.front_ok,
            "current_file_descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208  (the names are enough)
            "rate_limit_per_client_bytes_per_second": self._rates.bytes_per_s,
            "rate_limit_per_client_burst_bytes": self._rates.burst_bytes,
        }
        return snapshot(self.switch, tally, gauges)

    # Connections, for Front.

    def refuses_connection(self, *, encrypted: bool) -> str:
        """Why a new connection is not wanted, or ""."""
        if encrypted:
            if not self._accepts.allow(self.loop.time()):
                self.tally.counts["tls_listener_rejected_connections"] += 1
                return "accept_limit"
            self.tally.counts["tls_listener_accepted_connections"] += 1
        return "memory_ceiling" if self._full else ""

    def oldest_front(self, address: str) -> Front | None:
        """The oldest unfinished handshake, of one address (or its network) if one is given."""
        network = network_of(address)
        return next((f for f in self.fronts if f.holds_handshake and (not address or network_of(f.address) == network)), None)

    def is_mesh_peer(self, info: ClientInfo) -> bool:
        """Whether a client proved that it knows this relay's mesh key."""
        return self._mesh_key is not None and info.mesh_key is not None and hmac.compare_digest(info.mesh_key, self._mesh_key)

    def admit(
        self, link: Link, who: Introduction, ticket: Ticket | None, *, address: tuple[str, int], is_mesh: bool, not_ideal: bool
    ) -> Session:
        """Register a client; SERVER_INFO has been written."""
        self._serial += 1
        serial = self._serial
        session = Session(
            self.switch,
            who.key,
            who.info,
            link,
            serial=serial,
            is_mesh=is_mesh,
            not_ideal=not_ideal,
            address=_address(address[0]),
            port=address[1],
        )
        if not is_mesh:
            session.limiter = self._rates.limiter(self.loop.time())
        if ticket is not None:
            ticket.settle()
            self._tickets[serial] = ticket
        self.links[serial] = link
        link.keep_alive_s = KEEP_ALIVE_S + uniform(0, KEEP_ALIVE_JITTER_S)  # noqa: S311  (spreads load, hides nothing)
        heappush(self._keep_alives, (self.loop.time() + link.keep_alive_s, serial))
        self.switch.register(session)
        self.tick.arm()
        return session

    # Connections, for Link.

    def link_ended(self, link: Link, reason: str) -> None:
        session = link.session
        assert session is not None  # noqa: S101  (for the type checker)
        self.tally.labelled["closes", reason] += 1
        del self.links[session.serial]
        self._blocked.pop(link, None)
        if ticket := self._tickets.pop(session.serial, None):
            ticket.leave()
        self.switch.unregister(session)
        self.tick.arm()

    def link_blocked(self, link: Link) -> None:
        self._blocked[link] = (self.loop.time(), link.transport.get_write_buffer_size())

    def link_unblocked(self, link: Link) -> None:
        self._blocked.pop(link, None)

    # Timers.

    def _sweep(self) -> None:
        """Twice a second: keep-alives, handshakes out of time, and clients that take no bytes."""
        self.loop.call_later(SWEEP_S, self._sweep)
        now = self.loop.time()
        for front in [front for front in self.fronts if front.deadline < now]:
            front.expire()
        for link, (since, size) in [*self._blocked.items()]:
            self._check_blocked(link, since, size, now)
        while self._keep_alives and self._keep_alives[0][0] <= now:
            self._keep_alive(heappop(self._keep_alives)[1], now)
        if self.config.memory_ceiling_mib:
            self._full = _resident_mib() > self.config.memory_ceiling_mib
        if self.switch.dirty or self.switch.hangups:
            self.tick.arm()

    def _keep_alive(self, serial: int, now: float) -> None:
        link = self.links.get(serial)
        if link is None or link.session is None:
            return
        link.session.outbox.control(KEEP_ALIVE_FRAME)
        link.session.trim()
        heappush(self._keep_alives, (now + link.keep_alive_s, serial))

    def _check_blocked(self, link: Link, since: float, size: int, now: float) -> None:
        """Hang up when the kernel took nothing for the write timeout."""
        left = link.transport.get_write_buffer_size()
        if left < size:
            self._blocked[link] = (now, left)
            return
        is_mesh = link.session is not None and link.session.is_mesh
        limit = MESH_WRITE_TIMEOUT_S if is_mesh else self.config.tcp_write_timeout_s
        if limit and now - since >= limit:
            self.tally.counts["sclient_write_timeouts"] += 1
            link.end("write_timeout")

    async def _feed_watchdog(self, interval_s: float) -> None:
        while True:
            self.systemd.alive()
            await asyncio.sleep(interval_s)

    async def _watch_admission(self) -> None:
        """Hang up on clients that lost their admission."""
        async for key, _address_text, verdict in self.admission.revoked(self._clients):
            peer = self.switch.peers.get(key)
            for session in [*peer.sessions] if peer else ():
                session.hang_up(f"revoked_{verdict.reason}")
            self.tick.arm()

    def _clients(self) -> list[tuple[bytes, str]]:
        return [(session.key, str(session.address or "")) for session in self.switch.sessions if not session.is_mesh]

    async def _drain(self) -> None:
        """Stop listening, say when to come back, and close in a spread."""
        for listener in self.listeners:
            listener.close()
        for stun in self.stun:
            stun.close()
        for front in [*self.fronts]:
            front.expire()
        links = [*self.links.values()]
        spread_s = min(self.config.drain_s, len(links) / CLOSES_PER_S)
        self.log.info("draining", clients=len(links), seconds=round(spread_s, 1))
        for link in links:
            if link.session is not None:
                reconnect_ms = int(uniform(0, 1000 * spread_s)) + 500  # noqa: S311
                link.session.outbox.control(pack_restarting(reconnect_ms, int(TRY_FOR_S * 1000)))
        self.tick.flush()
        started = self.loop.time()
        for number, link in enumerate(links):
            link.say_goodbye()
            ahead_s = started + spread_s * number / len(links) - self.loop.time()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
        await asyncio.sleep(0.05)  # for the last bytes to leave
        for task in self._tasks:
            task.cancel()

    # Certificates and limits.

    def _load_certificate(self) -> ssl.SSLContext:
        chain, key = selfsigned.cert_paths(self.config.cert_dir, self.config.hostname)
        return make_server_context(chain, key, self._meta_certificate)

    def _tell_pin(self) -> None:
        chain, _ = selfsigned.cert_paths(self.config.cert_dir, self.config.hostname)
        pin = selfsigned.pin_of(chain.read_text("ascii"))
        self.log.info("made a self-signed certificate; DERP map node", node=selfsigned.map_node(self.config.hostname, pin))

    def _apply_rates(self) -> None:
        now = self.loop.time()
        for session in self.switch.sessions:
            if not session.is_mesh:
                session.limiter = self._rates.limiter(now)

    def _is_silent(self) -> bool:
        return not self.front_ok

    async def _listen(self, sock: Any, answer: Any, *, encrypted: bool) -> Listener:
        def make_front() -> Front:
            return Front(self, answer=answer, context=self._context if encrypted else None)

        return Listener(await self.loop.create_server(make_front, sock=sock, backlog=1024), sock.getsockname())


def _address(text: str) -> Any:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096 / 2**20
