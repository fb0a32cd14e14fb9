"""Find the line that breaks nginx's configuration: one of ours, or a neighbour's. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.facts import Facts
from roles.front.nginx import neighbours
from roles.front.nginx.places import canonical

# nginx names the second of two lines that it cannot take together.
_CLASH = re.compile(
    r"(?P<what>duplicate listen options|a duplicate default server) for (?P<at>\S+) in (?P<where>\S+:\d+)"
)
_LISTEN = re.compile(r"\blisten\s+([^;#]+);")
_HARMLESS = {"ssl", "http2", "quic", "proxy_protocol"}  # no options of the socket


def words(facts: Facts) -> str:
    """Return the error of `nginx -t` in the present configuration, or "".

    Where two lines do not go together it has the places of both.
    """
    first = "".join(f"; the first is {where} (listen {listen})" for where, listen in _others_in(facts))
    return neighbours.breakage(facts) + first


def is_by_us(facts: Facts) -> bool:
    """Whether the error is in one of our files, or in a file that only ours name.

    The latter may be a certificate that was removed. A clash of a neighbour's line with ours is by
    us as well, whichever line nginx names.
    """
    breakage = neighbours.breakage(facts)
    names = (neighbours.HTTP_NAME, neighbours.HTTPS_NAME, neighbours.STREAM_NAME)
    ours = {path: fact.content or "" for path, fact in facts.files.items() if path.endswith(names)}
    named = re.findall(r'"(/[^"]+)"', breakage)
    if any(path in breakage or any(name in text for name in named) for path, text in ours.items()):
        return True
    return any(where.rpartition(":")[0] in ours for where, _ in _others_in(facts))


def _others_in(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield (file:line, listen) of the lines that the named one does not go with."""
    clash = _CLASH.search(neighbours.breakage(facts))
    if not clash:
        return
    is_default = "default" in clash["what"]
    for where, listen in _listens(facts):
        at, *options = listen.split()
        has_part = bool({"default_server", "default"} & set(options)) if is_default else _has_options(options)
        if _same(at, clash["at"]) and has_part and where != clash["where"]:
            yield where, listen


def _has_options(options: list[str]) -> bool:
    return bool(set(options) - _HARMLESS)


def _same(one: str, other: str) -> bool:
    return _place(one) == _place(other)


def _place(at: str) -> tuple[str, str]:
    if at.isdigit():
        return "*", at
    address, _, port = at.rpartition(":") if not at.endswith("]") else (at, "", "80")
    return canonical(address or at), port if address else "80"


def _listens(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield (file:line, arguments) of every `listen`, from files that nginx does not show now."""
    output = facts.commands.get("nginx_listens")
    for line in output.stdout.splitlines() if output else ():
        file, number, text = (*line.split(":", 2), "", "")[:3]
        for found in _LISTEN.findall(text):
            yield f"{file}:{number}", found.strip()
