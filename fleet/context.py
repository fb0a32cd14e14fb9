"""What every verb starts from: the site, where its things lie, and how to run over several hosts."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import inventory
from engine import cache
from engine.facts import Ask
from engine.login import Login
from engine.report import Report
from engine.session import Session
from fleet.shared.errors import Interrupted, NoSuchHost
from inventory.errors import DerpfleetError
from inventory.model import Host, Site
from inventory.rules import HEADSCALE

T = TypeVar("T")
CHECKOUT = Path(__file__).parent.parent
PARALLEL = 16


@dataclass
class Fleet:
    """A loaded site with a report. `sessions` are those that Ctrl-C has to stop."""

    site: Site
    report: Report
    sessions: set[Session] = field(default_factory=set)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def runs(self) -> Path:
        """Where logs, proofs and the prover's keys are kept: a folder for each site file, as two may have a host of one name."""
        path = Path(self.site.path).resolve()
        return CHECKOUT / ".runs" / path.relative_to(CHECKOUT if path.is_relative_to(CHECKOUT) else "/")

    def keep(self, path: Path, record: Mapping[str, Any]) -> None:
        """Writes a record to a file below `runs`, as JSON. Raises CacheError."""
        with cache.ours(self.runs):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            cache.write(path, (json.dumps(record, indent=1) + "\n").encode())

    @property
    def base(self) -> Path:
        """What relative paths of the site file are relative to."""
        return Path(self.site.path).parent

    def login(self, host: Host) -> Login:
        """How to reach a relay host."""
        address = str(host.ipv4 or host.ipv6 or host.domain)
        return Login(host.name, host.ssh, address=address, known_hosts=Path(self.site.known_hosts), base=self.base)

    def headscale_login(self) -> Login:
        """How to reach the headscale host. Raises DerpfleetError when the site has none."""
        headscale = self.site.headscale
        if headscale is None:
            raise DerpfleetError("the site has no headscale host", next="invoke derpmap prints what to paste elsewhere")
        return Login(HEADSCALE, headscale.ssh, address=headscale.ssh.address or "", known_hosts=Path(self.site.known_hosts), base=self.base)

    def look(self, login: Login, ask: Ask) -> Session:
        """A conversation for looking: it waits for no lock and changes nothing. Raises DerpfleetError."""
        run_id = time.strftime("look-%Y-%m-%dT%H-%M-%SZ", time.gmtime())
        return Session(login, ask=ask, run_id=run_id, on_event=lambda _: None, lock=False)

    def hosts(self, names: Sequence[str]) -> list[Host]:
        """The named hosts, or all. Raises NoSuchHost."""
        unknown = [name for name in names if name not in self.site.hosts]
        if unknown:
            like = get_close_matches(unknown[0], self.site.hosts, 1)
            raise NoSuchHost(
                f"no host named {', '.join(unknown)} in {self.site.path}",
                why=f"its hosts are: {', '.join(self.site.hosts)}",
                next=f"did you mean --host {like[0]}?" if like else "give one of them, or none for all",
            )
        return [host for name, host in self.site.hosts.items() if not names or name in names]

    def equipped(self, names: Sequence[str], *, resolve: bool = False) -> list[Host]:
        """The same, when every file that is named for them here can be read, and with `resolve` when their names lead to them.

        Otherwise no host is contacted. Raises SiteError with every problem.
        """
        hosts = self.hosts(names)
        chosen = [host.name for host in hosts]
        problems = inventory.file_problems(self.site, only=chosen)
        if resolve:
            problems += inventory.resolve_problems(self.site, only=chosen)
        if problems:
            raise inventory.SiteError(Path(self.site.path), problems)
        return hosts

    def watch(self, session: Session) -> None:
        """Registers a session that Ctrl-C has to stop."""
        self.sessions.add(session)
        if self.stopping.is_set():
            session.stop()

    def each(self, items: Iterable[T], work: Callable[[T], object]) -> None:
        """`work` for all at once. Ctrl-C stops each after the resource in hand, and at once where there is none; a second one abandons all.

        Raises Interrupted; an exception of `work` is raised after all have ended.
        """
        todo, happened, errors = SimpleQueue[T](), SimpleQueue[str](), list[BaseException]()
        for item in items:
            todo.put(item)

        def go_on() -> None:
            with suppress(Empty):
                while not self.stopping.is_set():
                    item = todo.get_nowait()
                    try:
                        work(item)
                    except BaseException as error:
                        errors.append(error)
            happened.put("ended")

        at_work = min(PARALLEL, todo.qsize())
        with _on_ctrl_c(lambda: happened.put("pressed")):
            for _ in range(at_work):  # daemons: what hangs, as a connection to a host that is down, does not keep us once it is abandoned
                threading.Thread(target=go_on, daemon=True).start()
            while at_work and not (self.stopping.is_set() and not any(session.is_open for session in self.sessions)):
                with suppress(Empty):
                    if happened.get(timeout=0.2) == "ended":
                        at_work -= 1
                    else:
                        self._interrupt()
        if self.stopping.is_set():
            raise Interrupted("interrupted", next="run the same command again: it goes on from there")
        if errors:
            raise errors[0]

    def alone(self, work: Callable[[], T]) -> T:
        """The same for one piece of work, whose result it returns."""
        found: list[T] = []
        self.each([work], lambda one: found.append(one()))
        return found[0]

    def _interrupt(self) -> None:
        sessions = tuple(self.sessions)
        if self.stopping.is_set():
            for session in sessions:
                session.close()
            raise Interrupted("abandoned", why="the agents finish the resource in hand on their own")
        self.stopping.set()
        self.report.say("stopping after the resource in hand; once more to abandon")
        for session in sessions:
            session.stop()


@contextmanager
def _on_ctrl_c(tell: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C tells, instead of raising KeyboardInterrupt at any point of what runs. Off the main thread, it is that one's affair."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: tell())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
