"""The relay as a process: configuration, listeners, reload and drain around the clients.

A connection goes through io/arrival.py until it is admitted, and io/link.py after that. Both ask
clients.py. Timers are in sweep.py.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from functools import partial
from ipaddress import ip_address
from typing import Final

from relay import frontcheck, systemd
from relay.clients import Clients, Secrets
from relay.config import DEV_MESH_KEY, Config, unix_path
from relay.core.handshake import parse_mesh_key
from relay.core.reasons import Close, Refusal
from relay.drain import drain
from relay.golang.flag import split_host_port
from relay.http import answers, http11
from relay.http.proxy_header import Networks
from relay.io.arrival import Arrival
from relay.io.bootstrap_dns import BootstrapDns
from relay.io.listen import ListeningSocket, open_tcp, open_udp, open_unix
from relay.io.loop import Loop
from relay.io.stream import Stream
from relay.io.stun_batch import open_stun
from relay.io.stun_socket import StunSocket
from relay.keys.node_key import NodeKey, read_mesh_key
from relay.log import Log
from relay.mesh import mesh
from relay.mesh.workers import Worker
from relay.observe import pages
from relay.observe.census import Census, ask_others
from relay.reload import Reloader
from relay.tasks import Tasks

JOIN_S: Final = 3.0
Answer = Callable[[http11.Request, http11.Pages], http11.Answer]


class Relay:
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
        self.worker = worker
        self.log = Log("server")
        self._stopping = loop.create_future()
        self.tasks = Tasks(loop, self._stopping, self.log)
        self.clients = Clients(
            config, loop, key, Secrets(_read_mesh_key(config), worker), self.tasks.spawn, worker=worker
        )
        loop.poller.end_of_round = self.clients.tick.flush
        self.reloader = Reloader(config, self.clients, self.log)
        self.stun: list[StunSocket] = []
        self.listeners: list[ListeningSocket] = []
        self.front_ok = not config.front_check  # until a check has passed
        self.census = Census(self.clients, self.stun, self._gauges, worker)
        self.bootstrap = BootstrapDns(
            config.bootstrap_dns_names, config.unpublished_bootstrap_dns_names, self.clients.switch.counts
        )
        inside = self._make_inside()
        self._inside = pages.make_pages(
            inside, anyone=bool(config.metrics_listen), proxies=self.clients.proxies
        )
        self._parts = pages.make_parts(inside)
        self._pages = self._make_pages()
        self._handed = list(handed)
        self._notifier = notifier or systemd.Notifier()

    async def start(self) -> None:
        """Load the configuration's files and listen.

        Raises OSError, KeyFileError, ValueError with a sentence for the operator.
        """
        config = self.config
        self.reloader.load()
        if self.worker is not None:
            await self._join(self.worker)
        host, port = config.listen
        self._listen(open_tcp(host, port, config, self._handed), answers.answer, encrypted=config.serve_tls)
        if config.serve_tls and config.http_port >= 0:
            self._listen(open_tcp(host, config.http_port, config, self._handed), answers.answer_plain)
        if config.metrics_listen:
            self._listen_inside(config.metrics_listen)
        if config.stun:
            sockets = open_udp(host, config.stun_port, self._handed, reuse_port=config.workers > 1)
            self.stun += [open_stun(self.loop, sock, self._is_silent) for sock in sockets]
        for stray in self._handed:
            self.log.warning(
                "systemd handed over a socket that no flag asks for", address=stray.getsockname()
            )
            stray.close()
        self._spawn_all()
        self.clients.sweep.start()
        self.log.info(
            "listening",
            address=f"{host}:{port}",
            tls=config.serve_tls,
            stun=config.stun_port if config.stun else "off",
        )
        self._notifier.ready()

    async def run(self) -> None:
        """Serve until `stop`, then drain."""
        await self._stopping
        self._notifier.stopping("draining")
        for listener in self.listeners:
            listener.close()
        for stun in self.stun:
            stun.close()
        for arrival in [*self.clients.arrivals]:
            arrival.give_up(Refusal.DRAINING)
        clients = self.clients
        await drain(
            clients.links.values(),
            tick=clients.tick,
            loop=self.loop,
            spread_s=self.config.drain_s,
            log=self.log,
        )
        self.tasks.cancel()

    def stop(self) -> None:
        """Drain and end; the second time, end at once."""
        if self._stopping.done():
            for link in [*self.clients.links.values()]:
                link.end(Close.STOPPED)
        else:
            self._stopping.set_result(None)

    def reload(self) -> None:
        """Read certificate and limits again."""
        self._notifier.reloading()
        self.reloader.reload()
        self._notifier.ready()

    async def _join(self, worker: Worker) -> None:
        """Join the other workers before clients come.

        Else the clients of this worker and of the others could not reach each other yet.
        """
        self._listen([open_unix(worker.socket_path(worker.number))], self._answer_worker, worker=True)
        for other in worker.others:
            place = mesh.sibling(
                self.loop, f"worker {other}", worker.socket_path(other), worker.private_key, worker.secret
            )
            self._keep_link(place)
        await mesh.meet(self.loop, self.clients.switch, len(worker.others), JOIN_S)

    def _keep_link(self, place: mesh.Place) -> None:
        self.tasks.keep(mesh.keep(self.loop, self.clients.switch, self.clients.key.public, place))

    def _spawn_all(self) -> None:
        config = self.config
        if not self.clients.admission.is_open:
            self.tasks.keep(self.clients.watch_admission())
        if config.front_check:
            own = frontcheck.FrontAddress(*config.front, config.hostname, self.clients.key.public)
            self.tasks.keep(frontcheck.watch_front(own, self._set_front_ok))
        if interval_s := systemd.watchdog_interval_s(os.environ, os.getpid()):
            self.tasks.keep(self._feed_watchdog(interval_s))
        if self.worker is not None:
            self.tasks.keep(self.census.keep_writing())
        if config.mesh_with and (mesh_key := self.clients.secrets.mesh_key) is not None:
            tls = ssl.create_default_context()
            for entry in config.mesh_with:
                self._keep_link(mesh.outside(entry, self.clients.key.private, mesh_key, tls))
        self.tasks.keep(self.census.keep_rates())
        if config.bootstrap_dns_names or config.unpublished_bootstrap_dns_names:
            self.tasks.keep(self.bootstrap.keep_fresh())

    async def _feed_watchdog(self, interval_s: float) -> None:
        while True:
            self._notifier.alive()
            await asyncio.sleep(interval_s)

    def _set_front_ok(self, ok: bool) -> None:
        self.front_ok = ok

    def _is_silent(self) -> bool:
        return not self.front_ok

    def _gauges(self) -> dict[str, float]:
        """Return the gauges that only the relay as a whole knows, for the census."""
        limits, certificate = self.clients.limits, self.reloader.certificate
        gauges: dict[str, float] = {
            "front_ok": self.front_ok,
            "rate_limit_per_client_bytes_per_second": limits.bytes_per_s,
            "rate_limit_per_client_burst_bytes": limits.burst_bytes,
        }
        return (
            gauges
            if certificate is None
            else gauges | {"certificate_not_after_unix_time": certificate.not_after}
        )

    def _make_inside(self) -> pages.Inside:
        """Return the data of the debug pages.

        They are for loopback on every listener, or for all who reach the address that has them.
        """
        offset_s = time.time() - self.loop.time()  # from the loop's clock to Unix time
        about = {"hostname": self.config.hostname}
        if self.worker is None:
            return pages.Inside(self.clients.switch, self.census.all, self.census.rates, offset_s, about)
        about["worker"] = f"{self.worker.number} of {self.worker.count}; the pages are of all"
        return pages.Inside(
            self.clients.switch,
            self.census.all,
            self.census.rates,
            offset_s,
            about,
            partial(ask_others, self.worker),
        )

    def _listen_inside(self, address: str) -> None:
        """Serve the metrics: worker 0 on the named port or path, the others on those behind it.

        A port of another program costs its worker only: worker 0 has the metrics of all.
        """
        number = self.worker.number if self.worker is not None else 0
        path = unix_path(address)
        try:
            if path:
                sockets = [open_unix(f"{path}.{number}" if number else path)]
            else:
                host, service = split_host_port(address)
                sockets = open_tcp(host, int(service) + number, self.config, self._handed)
        except OSError as error:
            if number == 0:
                raise
            self.log.warning("no metrics of this worker alone; worker 0 has those of all", error=error)
        else:
            local = path or all(ip_address(sock.getsockname()[0]).is_loopback for sock in sockets)
            answer = self._answer_chosen if self.config.metrics_allow else self._answer_inside
            self._listen(sockets, self._answer_local if local else answer, proxied=False)

    def _answer_worker(self, request: http11.Request, pages: http11.Pages) -> http11.Answer:
        page = self._parts.get(request.path)
        return page(request) if page is not None else answers.answer(request, pages)

    def _answer_local(self, request: http11.Request, also: http11.Pages) -> http11.Answer:
        if pages.names_loopback(request):
            return self._answer_inside(request, also)
        return http11.error(403, "debug access denied: ask for 127.0.0.1 or localhost")

    def _answer_chosen(self, request: http11.Request, also: http11.Pages) -> http11.Answer:
        """Answer the chosen addresses about the metrics, and the host itself about everything."""
        if pages.may_debug(request):
            return self._answer_local(request, also)
        if Networks(self.config.metrics_allow).have(request.peer) and request.path == "/metrics":
            return self._answer_inside(request, also)
        return http11.error(403, "/metrics is for the addresses of -metrics-allow, all else for this host")

    def _answer_inside(self, request: http11.Request, _pages: http11.Pages) -> http11.Answer:
        page = answers.find_page(self._inside, request.path)
        return (
            page(request)
            if page is not None
            else http11.error(404, "metrics are at /metrics, all else is under /debug/")
        )

    def _make_pages(self) -> http11.Pages:
        pages = {} if self.config.metrics_listen else dict(self._inside)
        pages["/bootstrap-dns"] = self.bootstrap.page  # without names an empty object, as derper's
        return http11.Pages(
            public_key=self.clients.key.public,
            date=lambda: formatdate(usegmt=True),
            client_of=self.clients.proxies.client_of,
            derp=self.config.derp,
            home=self.config.home,
            by_path=pages,
        )

    def _listen(
        self,
        sockets: list[socket.socket],
        answer: Answer,
        *,
        encrypted: bool = False,
        proxied: bool = True,
        worker: bool = False,
    ) -> None:
        """Accept on these.

        `proxied`: trusted proxies may be in front, and begin with a PROXY header if there is one at
        all. `worker`: other workers of this relay come in here.
        """

        def welcome(stream: Stream, address: tuple[str, int]) -> None:
            context = self.reloader.context if encrypted else None
            Arrival(
                self.clients,
                stream,
                address,
                pages=self._pages,
                answer=answer,
                context=context,
                proxied=proxied,
                worker=worker,
            )

        self.listeners += [ListeningSocket(self.loop, sock, welcome) for sock in sockets]


def _read_mesh_key(config: Config) -> bytes | None:
    if config.dev and (text := os.environ.get(DEV_MESH_KEY)):
        try:
            return parse_mesh_key(text)
        except ValueError as error:
            raise ValueError(f"{DEV_MESH_KEY} {error}") from None
    return read_mesh_key(config.mesh_psk_file) if config.mesh_psk_file else None
