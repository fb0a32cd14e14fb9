"""Admission as the relay's own host sees it.

A relay that gets no answer about a stranger refuses it, which does not prove that it would refuse
strangers. Pure: the host's words in, a rung out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from inventory import tailscaled
from probe.proof import Rung
from probe.target import Target
from relay.core.reasons import Answer

_UNCLEAR = (
    *(Answer.VERIFY_URL_TIMEOUT, Answer.VERIFY_URL_UNREACHABLE, Answer.VERIFY_URL_STATUS),
    *(Answer.VERIFY_URL_BAD_ANSWER, Answer.VERIFY_URL_FAILED_OPEN, Answer.CHECK_FAILED),
    *(Answer.TAILSCALED_UNREACHABLE, Answer.TAILSCALED_ERROR),
)
_REASON = re.compile(r'\b(?:DERP_REASON|reason)\b["=: ]+(\w+)')
_DETAIL = re.compile(r'\b(?:DERP_DETAIL|detail)\b["=: ]+([^"\n]{1,200})')
# derper's words: derp/derpserver/derpserver.go. A refusal for any other reason is for want of an
# answer.
_BY_DERPER = re.compile(r"client nodekey:[0-9a-f]{64} rejected: (.+)")
_CLEAR = re.compile(r"admission controller: \S+ not allowed|peer \S+ not authorized|disallowed app name")
_CAUSES: Mapping[str, tuple[str, str]] = {
    "name": ("the relay's host cannot resolve the name", "getent hosts {host}"),
    "connection": (
        "the admission controller does not run, or a packet filter on the way drops what this host sends",
        "curl -v {judge}",
    ),
    "TLS": ("the relay's host does not trust the certificate of the admission controller", "curl -v {judge}"),
    "time": ("the admission controller accepts the connection and then hangs", "curl -v {judge}"),
    "status": (
        "the admission controller does not answer the question: it has an error, or the URL is another",
        "curl -v -d {{}} {judge}",
    ),
    "answer": ("it is no admission controller: the URL leads to another site", "curl -v -d {{}} {judge}"),
    **tailscaled.CAUSES,
}


@dataclass(frozen=True, kw_only=True)
class HostsWords:
    """The words of a relay's host.

    `judge`: the URL or the socket that it asks. `answer`: the output of ask_admission.py or
    ask_tailscaled.py. `log`: the relay's words about the stranger's refusal.
    `trouble`: why the host could not be asked; "" if it was.
    """

    judge: str
    answer: str = ""
    log: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Silence:
    """Why a relay's host gets no answer about a client.

    `look`: the command that shows it on that host.
    """

    detail: str
    cause: str
    look: str


def silence_of(asked: HostsWords) -> Silence | None:
    """Return why the host gets no answer; None when it gets one, or was not asked."""
    answer = tailscaled.read(asked.answer)
    step = str(answer.get("step"))
    if step not in _CAUSES:
        return None
    cause, command = _CAUSES[step]
    host = asked.judge.partition("://")[2].partition("/")[0].rpartition("@")[2]
    look = command.format(judge=asked.judge, host=host, **tailscaled.names(asked.judge))
    detail = f"{asked.judge}, asked from the relay's host: {step}: {_line(answer.get('detail'))}"
    return Silence(detail, cause, look)


def admission_rung(target: Target, asked: HostsWords) -> Rung:
    """Return the rung `admission`."""
    if asked.trouble:
        return _failed(
            f"the relay's host cannot be asked: {asked.trouble}",
            "a relay that can ask nobody refuses everybody, and from outside that looks like the proof's "
            "refused stranger",
            f"invoke status --host {target.name} shows how to reach the host; then {target.again}",
        )
    answer = tailscaled.read(asked.answer)
    if answer.get("step") is None:
        return _failed(
            f"the relay's host did not say whether it can ask {asked.judge}",
            "its Python does not run our question",
            f"see ssh.python of {target.name} in the site file, then {target.again}",
        )
    if silence := silence_of(asked):
        return _failed(
            silence.detail,
            f"{silence.cause}; the relay refuses everybody until it gets an answer",
            f"on the relay's host: {silence.look}; then {target.again}",
        )
    if unclear := _unclear(asked.log):
        reason, meaning = unclear
        return _failed(
            f"the relay refused the stranger because it got no answer: {reason}",
            f"{meaning}; its host gets an answer from {asked.judge}, the relay does not: an address that "
            f"does not work {_line(answer.get('detail'))}".rstrip(),
            f"invoke logs --host {target.name} --relay; correct the records of that name, then "
            f"{target.again}",
        )
    if answer.get("allow"):
        return _failed(
            f"{asked.judge} admits a key that was made up a moment ago",
            "the admission controller admits everybody",
            f"set it to refuse unknown nodes, then {target.again}",
        )
    ms = answer.get("ms")
    took = ms if isinstance(ms, int | float) and 0 <= ms < 1e6 else 0.0
    tried = _line(answer.get("detail"))
    warnings = [f"the relay's host reaches it only after {tried}"] if tried else []
    warning = "; ".join([*warnings, *tailscaled.warnings(answer)])
    return Rung("admission", "ok", f"{asked.judge} refuses a stranger, by the host", warning=warning, ms=took)


def _unclear(log: str) -> tuple[str, str] | None:
    """Return the relay's reason, and what it means, if it refused for want of an answer."""
    refusal, by_derper = _REASON.search(log), _BY_DERPER.search(log)
    if by_derper and not _CLEAR.match(by_derper[1]):
        return _line(by_derper[1]), "derper got no answer that it could use"
    meaning = next((each.meaning for each in _UNCLEAR if refusal and each == refusal[1]), None)
    if refusal is None or meaning is None:
        return None
    detail = _DETAIL.search(log)
    return refusal[1] + (f" ({_line(detail[1])})" if detail else ""), meaning


def _failed(detail: str, cause: str, step: str) -> Rung:
    return Rung("admission", "failed", detail, cause=cause, next=step)


def _line(text: object) -> str:
    """Return a short printable line of a host's text."""
    return "".join(char for char in str(text or "") if char.isprintable())[:200]
