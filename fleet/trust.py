"""`invoke trust`: look at a host's key and pin it. The only place that writes known_hosts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from paramiko import PKey

from engine import cache, known_hosts
from engine.login import Login, Unreachable
from engine.ssh import fingerprint, offered_host_key
from fleet.shared.fleet import Fleet
from inventory.rules import HEADSCALE

Confirm = Callable[[str], bool]
_NO_TERMINAL = ": there is no terminal to ask at; once you have compared it, give it with --fingerprint SHA256:…"


def trust_hosts(fleet: Fleet, names: Sequence[str], *, replace: bool, expected: str) -> int:
    """Pin the keys of the named hosts, asking on the terminal. Returns the exit code: 0 when all are pinned. Raises as `trust` does."""
    return 1 if trust(fleet, logins(fleet, names), replace=replace, expected=expected, confirm=ask_person) else 0


def logins(fleet: Fleet, names: Sequence[str]) -> list[Login]:
    """The named hosts, `headscale` among them, or all of the site; before each the jump hosts on the way. Raises NoSuchHost."""
    relays = [name for name in names if name != HEADSCALE]
    found = [fleet.login(host) for host in fleet.hosts(relays)] if relays or not names else []
    if HEADSCALE in names or (not names and fleet.site.control.ssh):
        found.append(fleet.control_login())
    every = {one.key_name: one for login in found for one in (*login.hops(), login)}
    return list(every.values())


def ask_person(question: str) -> bool:
    """A yes on the terminal; no when there is none."""
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def trust(fleet: Fleet, logins: list[Login], *, replace: bool, expected: str, confirm: Confirm) -> int:
    """Pins the offered key of each host. Returns how many were not pinned. Raises Unreachable, CacheError.

    A key that differs from a pinned one is refused unless `replace`. `expected` is a fingerprint (`SHA256:…`) that stands in
    for a person's look.
    """
    path = Path(fleet.site.known_hosts)
    refused = 0
    for login in logins:
        key = offered_host_key(login)
        with cache.ours(path.parent):
            known: Mapping[str, PKey] = known_hosts.read(path).lookup(login.key_name) or {}
        shown = fingerprint(key)
        if expected and not _is(shown, expected):
            fleet.report.line(login.name, "failed", f"shows {shown}, which is not {expected}")
            refused += 1
        elif known.get(key.get_name()) == key:
            fleet.report.line(login.name, "ok", f"{shown} is pinned already")
        elif known and not replace:
            why = "pinned: " + ", ".join(fingerprint(other) for other in known.values())
            raise Unreachable(
                "the host shows another key than the pinned one",
                host=login.name,
                where=login.key_name,
                why=f"{why}; offered: {shown}",
                next=f"if the host was reinstalled: invoke trust --host {login.name} --replace",
            )
        elif expected or confirm(f"{login.name} ({login.key_name}) shows {shown}\nCompare it with the provider's console. Is it right?"):
            _pin(path, login.key_name, key)
            fleet.report.line(login.name, "changed", f"{shown} pinned in {path}")
        else:
            fleet.report.line(login.name, "skipped", f"{shown} not pinned{_NO_TERMINAL if not sys.stdin.isatty() else ''}")
            refused += 1
    return refused


def _is(shown: str, expected: str) -> bool:
    return expected in (shown, shown.split()[1])


def _pin(path: Path, name: str, key: PKey) -> None:
    with cache.ours(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes().decode(errors="surrogateescape") if path.exists() else ""
        cache.write(path, known_hosts.pin(text, name, key).encode(errors="surrogateescape"))
