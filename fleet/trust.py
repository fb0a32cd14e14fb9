"""`invoke trust`: show a host's key and pin it. No other code writes known_hosts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from paramiko import PKey

from engine import cache, known_hosts
from engine.login import Login, Unreachable
from engine.ssh import offered_host_key
from engine.ssh_errors import fingerprint, revoked_key
from fleet.shared.fleet import Fleet

Confirm = Callable[[str], bool]
_NO_TERMINAL = (
    ": there is no terminal to ask at. Compare it with the provider's console, then give it with "
    "--fingerprint SHA256:…"
)


def trust_hosts(fleet: Fleet, names: Sequence[str], *, replace: bool, expected: str) -> int:
    """Pin the keys of the named hosts, asking on the terminal. Raises as `trust` does.

    Returns the exit code: 0 when all are pinned.
    """
    found = logins(fleet, names)
    return 1 if trust(fleet, found, replace=replace, expected=expected, confirm=ask_person) else 0


def logins(fleet: Fleet, names: Sequence[str]) -> list[Login]:
    """Return the logins of the named hosts, or of all of the site. Before each come its jump hosts.

    The control server's hosts have names as well. Raises NoSuchHost.
    """
    control = {login.name: login for login in fleet.control_logins()}
    relays = [name for name in names if name not in control]
    found = [fleet.login(host) for host in fleet.managed(relays)] if relays or not names else []
    found += [login for name, login in control.items() if name in names or not names]
    every = {one.key_name: one for login in found for one in (*login.hops(), login)}
    return list(every.values())


def ask_person(question: str) -> bool:
    """Whether the person at the terminal says yes. No when there is no terminal."""
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def trust(fleet: Fleet, logins: list[Login], *, replace: bool, expected: str, confirm: Confirm) -> int:
    """Pin the offered key of each host. Returns how many were not pinned.

    A key that differs from a pinned one is refused unless `replace`. `expected` is a fingerprint
    (`SHA256:…`) that a person compared before; nothing is asked then.
    Raises Unreachable, CacheError.
    """
    path = Path(fleet.site.known_hosts)
    refused = 0
    for login in logins:
        key = offered_host_key(login)
        with cache.access_to(path.parent):
            pins = known_hosts.read(path)
        for words in pins.skipped:
            fleet.report.line(login.name, "warning", f"{path}, {words}; it is skipped")
        known, shown = pins.keys(login.key_name), fingerprint(key)
        if pins.is_revoked(login.key_name, key):
            raise revoked_key(login, key)
        if expected and not _is(shown, expected):
            fleet.report.line(login.name, "failed", f"shows {shown}, which is not {expected}")
            refused += 1
        elif key in known:
            fleet.report.line(login.name, "ok", f"{shown} is pinned already")
        elif known and not replace:
            why = "pinned: " + ", ".join(fingerprint(other) for other in known)
            raise Unreachable(
                "the host shows another key than the pinned one",
                host=login.name,
                where=login.key_name,
                why=f"{why}; offered: {shown}",
                next=f"if the host was reinstalled: invoke trust --host {login.name} --replace",
            )
        elif expected or confirm(
            f"{login.name} ({login.key_name}) shows {shown}\n"
            "Compare it with the key that your provider's console shows. Are they the same?"
        ):
            _pin(path, login.key_name, key)
            fleet.report.line(login.name, "changed", f"{shown} pinned in {path}")
        else:
            words = f"{shown} not pinned{'' if sys.stdin.isatty() else _NO_TERMINAL}"
            fleet.report.line(login.name, "skipped", words)
            refused += 1
    return refused


def _is(shown: str, expected: str) -> bool:
    return expected in (shown, shown.split()[1])


def _pin(path: Path, name: str, key: PKey) -> None:
    with cache.access_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes().decode(errors="surrogateescape") if path.exists() else ""
        cache.write(path, known_hosts.pin(text, name, key).encode(errors="surrogateescape"))
