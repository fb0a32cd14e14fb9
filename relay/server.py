"""The relay as a process: configuration, listeners, reload and drain around the switch.

What a connection goes through is in io/arrival.py (until it is admitted) and link.py (after that); timers are in sweep.py.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Sequence
from email.utils import formatdate
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

from relay import frontcheck, systemd
from relay.admission import admission
from relay.core.addresses import AddressTable, Ticket, parse_address
from relay.core.bucket import Bucket, RateConfig, parse_rate_config
from relay.core.handshake import ClientInfo, Introduction, parse_mesh_key
from relay.core.session import Session
from relay.core.stats import Rates, Tally
from relay.core.switch import Switch
from relay.drain import drain
from relay.flags import DEV_MESH_KEY, Config
from relay.golang.flag import split_host_port
from relay.http import http11
from relay.http.proxy_header import TrustedProxies
from relay.io.arrival import Arrival
from relay.io.bootstrap_dns import BootstrapDns
from relay.io.link import Link, Owner, Tick
from relay.io.listen import Listener, open_tcp, open_udp, open_unix
from relay.io.loop import Loop
from relay.io.stream import Stream
from relay.io.stun_batch import open_stun
from relay.io.stun_socket import StunSocket
from relay.io.tls import make_server_context
from relay.keys import meta_certificate, self_signed
from relay.keys.certificate import CertInfo, first_certificate, parse_certificate
from relay.keys.node_key import NodeKey, read_mesh_key
from relay.log import Log
from relay.mesh import mesh
from relay.mesh.workers import Worker
from relay.observe import pages
from relay.observe.census import Census, ask_others
from relay.sweep import Sweep

JOIN_S: Final = 3.0
Answer = Callable[[http11.Request, http11.Pages], http11.Answer]


class Relay(Owner):
    """One relay process. `start`, then `run` until a signal ends it."""

    def __init__(
        self,
        config: Config,
        loop: Loop,
        key: NodeKey,
        *,
        worker: Worker | None = None,
        handed: Sequence[socket.socket] = (),
        notifier: systemd.Notifier | None = None,
    ) -> None:
        self.config = config
        self.loop = loop
        self.key = key
        self.worker = worker
        self.log = Log("server")
        self.switch = Switch(loop.time, key.public)
        self.tally = Tally()
        self.tick = Tick(loop.time, loop.tell, self.switch, self.tally)
        loop.poller.end_of_round = self.tick.flush
        self.sweep = Sweep(self)
        self.admission = admission.from_config(config)
        self.proxies = TrustedProxies(config.trusted_proxies)
        self.proxy_protocol = config.proxy_protocol
        self.addresses = AddressTable(
            connections=config.connections_per_address,
            handshakes=config.handshakes_per_address,
            handshakes_in_all=config.handshakes_in_flight,
        )
        self.handshake_timeout_s = config.handshake_timeout_s
        self._disallowed_app_names = frozenset(config.disallow_app_names)
        self.rate_limits = RateConfig()
        self.arrivals: dict[Arrival, None] = {}  # in the order in which they came
        self.links: dict[int, Link] = {}  # by serial number
        self.stun: list[StunSocket] = []
        self.listeners: list[Listener] = []
        self.front_ok = not config.front_check  # until a check has passed
        self.failure = ""  # what made it end, if it was no signal
        self.started_at = time.time()
        self.census = Census(self)
        self.rates = Rates()
        self.bootstrap = BootstrapDns(config.bootstrap_dns_names, config.unpublished_bootstrap_dns_names, self.tally.counts)
        self.certificate: CertInfo | None = None
        inside = self._make_inside()
        self._inside = pages.make_pages(inside, anyone=bool(config.metrics_listen), proxies=self.proxies)
        self._parts = pages.make_parts(inside)
        self.pages = self._make_pages()
        self._handed = list(handed)
        self._notifier = notifier or systemd.Notifier()
        self._context: ssl.SSLContext | None = None
        self._mesh_key = _read_mesh_key(config)
        self._meta_certificate = meta_certificate.pem_of(meta_certificate.new_meta_cert(key.public, time.time()))
        self._accepts = Bucket(config.accept_connection_limit, config.accept_connection_burst, loop.time())
        # Of all workers no two give a connection the same number.
        self._serials = count(1) if worker is None else count(1 + worker.number, worker.count)
        self._tickets: dict[int, Ticket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = loop.create_future()

    # Life.

    async def start(self) -> None:
        """Load what is configured and listen. Raises OSError, KeyFileError, ValueError with words for the operator."""
        config = self.config
        if config.serve_tls:
            if self_signed.ensure_self_signed(config.cert_dir, config.hostname, time.time()):
                self._tell_pin()
            self._context = self._load_certificate()
        if config.rate_config:
            self.rate_limits = _read_rate_config(config.rate_config)
        if self.worker is not None:
            await self._join(self.worker)
        host, port = config.listen
        self._listen(open_tcp(host, port, config, self._handed), http11.answer, encrypted=config.serve_tls)
        if config.serve_tls and config.http_port >= 0:
            self._listen(open_tcp(host, config.http_port, config, self._handed), http11.answer_plain)
        if config.metrics_listen:
            self._listen_inside(config.metrics_listen)
        if config.stun:
            sockets = open_udp(host, config.stun_port, self._handed, reuse_port=config.workers > 1)
            self.stun = [open_stun(self.loop, sock, self._is_silent) for sock in sockets]
        for stray in self._handed:
            self.log.warning("systemd handed over a socket that no flag asks for", address=stray.getsockname())
            stray.close()
        self._spawn_all()
        self.sweep.start()
        self.log.info("listening", address=f"{host}:{port}", tls=config.serve_tls, stun=config.stun_port if config.stun else "off")
        self._notifier.ready()

    async def run(self) -> None:
        """Serve until `stop`, then drain."""
        await self._stopping
        self._notifier.stopping("draining")
        for listener in self.listeners:
            listener.close()
        for stun in self.stun:
            stun.close()
        for arrival in [*self.arrivals]:
            arrival.give_up("draining")
        await drain(self)
        for task in self._tasks:
            task.cancel()

    def stop(self) -> None:
        """Drain and end; the second time, end at once."""
        if self._stopping.done():
            for link in [*self.links.values()]:
                link.end("stopped")
        else:
            self._stopping.set_result(None)

    def reload(self) -> None:
        """Read certificate and limits again; what cannot be read stays as it was, whatever becomes of the other."""
        self._notifier.reloading()
        if self.config.serve_tls:
            self._reload("certificate", self._reload_certificate)
        if self.config.rate_config:
            self._reload("limits", self._reload_limits)
        self._notifier.ready()

    def _reload(self, part: str, read: Callable[[], None]) -> None:
        try:
            read()
        except (OSError, ValueError) as error:
            self.tally.labelled["reload_failures", part] += 1
            self.log.error("reload failed, the old one stays in force", part=part, error=error)
        else:
            self.tally.labelled["reloads", part] += 1
            self.log.info("reloaded", part=part)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something for one connection; it is cancelled at the end, and an error that it does not expect is logged."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._tell_error)
        return task

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that the relay needs as long as it lives: should it fail, the relay drains and ends, with `failure` set."""
        self.spawn(work).add_done_callback(self._fail)

    def _tell_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self.log.unforeseen("a background task failed", error)

    def _fail(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and not self._stopping.done():
            self.failure = f"{getattr(task.get_coro(), '__name__', 'a task')} ended: {error}"
            self.stop()

    # Connections, for Arrival.

    def refuses_connection(self, *, main: bool) -> str:
        """Why a new connection is not wanted, or "". The main listener has the limit, also where a proxy does its TLS."""
        if main:
            if not self._accepts.allow(self.loop.time()):
                self.tally.counts["tls_listener_rejected_connections"] += 1
                return "accept_limit"
            self.tally.counts["tls_listener_accepted_connections"] += 1
        return ""

    def refuses_client(self, info: ClientInfo) -> str:
        """Why a new client is not wanted, whoever it is, or ""; mesh peers always are."""
        if info.app_name in self._disallowed_app_names:
            return "disallowed_app_name"
        return "memory_ceiling" if self.sweep.full else ""

    def is_sibling(self, info: ClientInfo) -> bool:
        """Whether a client proved to be another worker of this relay."""
        return self.worker is not None and info.mesh_key is not None and hmac.compare_digest(info.mesh_key, self.worker.secret)

    def is_mesh_peer(self, info: ClientInfo) -> bool:
        """Whether a client proved that it knows this relay's mesh key."""
        knows = self._mesh_key is not None and info.mesh_key is not None and hmac.compare_digest(info.mesh_key, self._mesh_key)
        return knows or self.is_sibling(info)

    def admit(self, link: Link, who: Introduction, ticket: Ticket | None, *, address: tuple[str, int], not_ideal: bool) -> Session:
        """Register a client; SERVER_INFO has been written."""
        serial = next(self._serials)
        session = Session(
            self.switch,
            who.key,
            who.info,
            link,
            serial=serial,
            is_mesh=self.is_mesh_peer(who.info),
            sibling=self.is_sibling(who.info),
            not_ideal=not_ideal,
            address=parse_address(address[0]),
            port=address[1],
        )
        if not session.is_mesh:
            session.limiter = self.rate_limits.limiter(self.loop.time())
        if ticket is not None:
            ticket.settle()
            self._tickets[serial] = ticket
        self.links[serial] = link
        self.sweep.add(link, serial)
        self.switch.register(session)
        return session

    # Connections, for Link.

    def link_ended(self, link: Link, reason: str) -> None:
        session = link.session
        assert session is not None  # noqa: S101  (for the type checker)
        self.tally.labelled["closes", reason] += 1
        del self.links[session.serial]
        self.sweep.unblock(link)
        if ticket := self._tickets.pop(session.serial, None):
            ticket.leave()
        self.switch.unregister(session)

    def link_blocked(self, link: Link) -> None:
        self.sweep.block(link)

    def link_unblocked(self, link: Link) -> None:
        self.sweep.unblock(link)

    async def _join(self, worker: Worker) -> None:
        """Know the other workers, and be known to them, before clients come: theirs and ours could not reach each other yet."""
        self._listen([open_unix(worker.socket_path(worker.number))], self._answer_worker)
        for other in worker.others:
            place = mesh.sibling(self.loop, f"worker {other}", worker.socket_path(other), worker.private_key, worker.secret)
            self.keep(mesh.keep(self, place))
        deadline = self.loop.time() + JOIN_S  # one of them may be dead
        while self.loop.time() < deadline:
            known = sum(link.sibling for link in self.switch.mesh_links), sum(watcher.sibling for watcher in self.switch.watchers)
            if known == (len(worker.others),) * 2:
                break
            await asyncio.sleep(0.01)

    # Beside the connections.

    def _spawn_all(self) -> None:
        config = self.config
        if not self.admission.is_open:
            self.keep(self._watch_admission())
        if config.front_check:
            own = frontcheck.FrontAddress(*config.front, config.hostname, self.key.public)
            self.keep(frontcheck.watch_front(own, self._set_front_ok))
        if interval_s := systemd.watchdog_interval_s(os.environ, os.getpid()):
            self.keep(self._feed_watchdog(interval_s))
        if self.worker is not None:
            self.keep(self.census.keep_writing())
        if config.mesh_with and self._mesh_key is not None:
            tls = ssl.create_default_context()
            for entry in config.mesh_with:
                self.keep(mesh.keep(self, mesh.outside(entry, self.key.private, self._mesh_key, tls)))
        self.keep(self.census.keep_rates())
        if config.bootstrap_dns_names or config.unpublished_bootstrap_dns_names:
            self.keep(self.bootstrap.keep_fresh())

    async def _feed_watchdog(self, interval_s: float) -> None:
        while True:
            self._notifier.alive()
            await asyncio.sleep(interval_s)

    async def _watch_admission(self) -> None:
        """Hang up on clients that lost their admission."""
        async for key, _address, verdict in self.admission.revoked(self._clients):
            peer = self.switch.peers.get(key)
            for session in [*peer.sessions] if peer else ():
                session.hang_up(f"revoked_{verdict.reason}")

    def _clients(self) -> list[tuple[bytes, str]]:
        return [(session.key, str(session.address or "")) for session in self.switch.sessions if not session.is_mesh]

    def _set_front_ok(self, ok: bool) -> None:
        self.front_ok = ok

    def _is_silent(self) -> bool:
        return not self.front_ok

    # Certificates, limits, listeners.

    def _make_inside(self) -> pages.Inside:
        """What the debug pages look at. They are for loopback on every listener, or for whoever reaches the address that has them."""
        offset_s = time.time() - self.loop.time()  # from the loop's clock to Unix time
        about = {"hostname": self.config.hostname}
        if self.worker is None:
            return pages.Inside(self.switch, self.census.all, self.rates, offset_s, about)
        about["worker"] = f"{self.worker.number} of {self.worker.count}; the pages are of all"
        return pages.Inside(self.switch, self.census.all, self.rates, offset_s, about, partial(ask_others, self.worker))

    def _listen_inside(self, address: str) -> None:
        """The metrics: worker 0 on the port that is named, the others on those behind it, if nobody else has them."""
        host, service = split_host_port(address)
        number = self.worker.number if self.worker is not None else 0
        try:
            sockets = open_tcp(host, int(service) + number, self.config, self._handed)
        except OSError as error:
            if number == 0:
                raise
            self.log.warning("no metrics of this worker alone; worker 0 has those of all", error=error)
        else:
            self._listen(sockets, self._answer_inside, proxied=False)

    def _answer_worker(self, request: http11.Request, pages: http11.Pages) -> http11.Answer:
        page = self._parts.get(request.path)
        return page(request) if page is not None else http11.answer(request, pages)

    def _answer_inside(self, request: http11.Request, _pages: http11.Pages) -> http11.Answer:
        page = http11.find_page(self._inside, request.path)
        return page(request) if page is not None else http11.error(404, "metrics are at /metrics, all else is under /debug/")

    def _make_pages(self) -> http11.Pages:
        pages = {} if self.config.metrics_listen else dict(self._inside)
        if self.config.bootstrap_dns_names or self.config.unpublished_bootstrap_dns_names:
            pages["/bootstrap-dns"] = self.bootstrap.page
        return http11.Pages(
            public_key=self.key.public,
            date=lambda: formatdate(usegmt=True),
            client_of=self.proxies.client_of,
            derp=self.config.derp,
            home=self.config.home,
            pages=pages,
        )

    def _load_certificate(self) -> ssl.SSLContext:
        """The certificate as it lies there now. Raises OSError, and ValueError if it is not for this relay's name."""
        chain, key = self_signed.cert_paths(self.config.cert_dir, self.config.hostname)
        certificate = parse_certificate(first_certificate(chain.read_text("ascii")))
        if not certificate.is_for(self.config.hostname):
            raise ValueError(f"{chain} is for {', '.join(certificate.names) or 'nobody'}, not for {self.config.hostname}")
        context = make_server_context(chain, key, self._meta_certificate)
        self.certificate = certificate
        return context

    def _tell_pin(self) -> None:
        chain, _ = self_signed.cert_paths(self.config.cert_dir, self.config.hostname)
        pin = self_signed.pin_of(chain.read_text("ascii"))
        self.log.info("made a self-signed certificate; DERP map node", node=self_signed.map_node(self.config.hostname, pin))

    def _reload_certificate(self) -> None:
        self._context = self._load_certificate()

    def _reload_limits(self) -> None:
        self.rate_limits = _read_rate_config(self.config.rate_config)
        now = self.loop.time()
        for link in self.links.values():
            if link.session is not None and not link.session.is_mesh:
                link.session.limiter = self.rate_limits.limiter(now)

    def _listen(self, sockets: list[socket.socket], answer: Answer, *, encrypted: bool = False, proxied: bool = True) -> None:
        """Accept on these. `proxied`: trusted proxies may be in front, and begin with a PROXY header if there is one at all."""

        def welcome(stream: Stream, address: tuple[str, int]) -> None:
            Arrival(self, stream, address, answer=answer, context=self._context if encrypted else None, proxied=proxied)

        self.listeners += [Listener(self.loop, sock, welcome) for sock in sockets]


def _read_rate_config(path: str) -> RateConfig:
    try:
        return parse_rate_config(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"rate config {path} {error}") from None


def _read_mesh_key(config: Config) -> bytes | None:
    if config.dev and (text := os.environ.get(DEV_MESH_KEY)):
        try:
            return parse_mesh_key(text)
        except ValueError as error:
            raise ValueError(f"{DEV_MESH_KEY} {error}") from None
    return read_mesh_key(config.mesh_psk_file) if config.mesh_psk_file else None
