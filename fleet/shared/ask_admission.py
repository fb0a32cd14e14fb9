"""Ask the relays' hosts whether they can ask who may use the relay, beside the ladder."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from engine.facts import Ask, Facts
from engine.session import Session
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.admission import HostsWords, admission_rung
from probe.proof import Proof, Rung, with_rung
from probe.target import Target
from relay.core.handshake import format_key, make_private_key, public_key
from roles import relay
from roles.relay.contract import Inquiry

_LADDER_S = 60.0  # the handshake is known by then, or will never be


class Questions:
    """The questions to the hosts of one proof, each in a session of its own.

    A host is asked at once. After the handshake it is asked too what the relay logged of the
    stranger. The sessions run while the ladder is climbed, so they take no time of their own.
    `session`: the one that is open to the only host. It is asked both after the handshake, in one
    turn; a login would take four more.
    """

    def __init__(self, fleet: Fleet, hosts: Sequence[Host], session: Session | None = None) -> None:
        self._fleet, self._session = fleet, session
        key = format_key(public_key(make_private_key()))
        inquiries = [(host, relay.inquiry(host, fleet.site, key)) for host in hosts if host.managed]
        asked = [(host, inquiry) for host, inquiry in inquiries if inquiry is not None]
        self._strangers: dict[str, str] = {}  # of the handshakes that hold
        self._known = {host.name: threading.Event() for host, _ in asked}
        self._pool = ThreadPoolExecutor(max(1, len(asked)))
        self._answers: dict[str, Future[HostsWords]] = {
            host.name: self._pool.submit(self._ask, host, inquiry) for host, inquiry in asked
        }

    def climbed(self, name: str, rung: Rung) -> None:
        """Take note of a rung of that host: the handshake names the refused stranger."""
        if rung.name == "handshake" and name in self._known:
            if rung.status == "ok":
                self._strangers[name] = str(rung.data.get("stranger", ""))
            self._known[name].set()

    def added(self, target: Target, proof: Proof) -> Proof:
        """Return the proof with its rung `admission`. Call it once the ladder is climbed."""
        answer = self._answers.get(target.name)
        if answer is None or proof["handshake"].status != "ok":
            return proof
        return with_rung(proof, admission_rung(target, answer.result()))

    def close(self) -> None:
        """Let the sessions end, without waiting for those of a broken ladder.

        The open session's answer is waited for: the next one in it is another question's.
        """
        for known in self._known.values():
            known.set()
        self._pool.shutdown(wait=self._session is not None)

    def _ask(self, host: Host, inquiry: Inquiry) -> HostsWords:
        try:
            commands = self._asked(host, inquiry).commands
        except DerpfleetError as error:
            return HostsWords(judge=inquiry.judge, trouble=f"{error.what} {error.why}".strip())
        log = ""
        if said := commands.get("refusal"):
            lines = [*said.stdout.splitlines(), *said.stderr.splitlines()]  # Docker keeps both
            log = "\n".join(line for line in lines if self._strangers[host.name] in line)
        answer = commands["admission"].stdout if "admission" in commands else ""
        return HostsWords(judge=inquiry.judge, answer=answer, log=log)

    def _asked(self, host: Host, inquiry: Inquiry) -> Facts:
        """Return the facts with the host's answers. Raises DerpfleetError."""
        first: dict[str, tuple[str, ...]] = {"admission": (host.ssh.python, "-I", "-c", *inquiry.program)}
        if self._session is not None:
            later = self._after_the_handshake(host)
            holds = host.name in self._strangers
            return self._session.ask(Ask(commands=first | later)) if holds else self._session.facts
        with self._fleet.session_for_reading(self._fleet.login(host), Ask(commands=first)) as session:
            later = self._after_the_handshake(host)
            return session.ask(Ask(commands=later)) if later else session.facts

    def _after_the_handshake(self, host: Host) -> dict[str, tuple[str, ...]]:
        """Wait for the handshake. Return the question about its stranger, if it has one."""
        self._known[host.name].wait(_LADDER_S)
        stranger = self._strangers.get(host.name)
        return {"refusal": relay.log_of_client(host, stranger)} if stranger else {}
