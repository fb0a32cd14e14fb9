"""The values that roles pass to each other.

`roles.relay_host` joins the roles, so that no role imports another to name its resources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from engine.facts import Listener
from engine.resource import Resource
from roles.wiring import Use


@dataclass(frozen=True)
class Question:
    """A command, and the output that means yes."""

    argv: tuple[str, ...]
    says: str


@dataclass(frozen=True, kw_only=True)
class ReloadTest:
    """A test of a front's configuration, before a new certificate reloads it.

    `program`: the front's, in words. `by_hand`: the same test for people. `argv`: fails when a
    reload would. `words`: prints the reason then, in lines of which those with `mark` are errors.
    """

    program: str
    by_hand: str
    argv: tuple[str, ...]
    words: tuple[str, ...]
    mark: str


@dataclass(frozen=True)
class Challenge:
    """How an ACME server's challenge is answered.

    `authenticator`: certbot's arguments. `needs`: the ids that have to be there first. `units`: the
    systemd units that answer. `writes`: the folders that certbot writes answers to. `environment`:
    the variables that certbot needs. `stops`: the unit that is stopped as long as an order takes.
    """

    authenticator: tuple[str, ...]
    needs: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stops: str | None = None


@dataclass(frozen=True, kw_only=True)
class ServedBy:
    """The program that serves the certificate.

    `at`: where this host reaches it, as address:port; nginx may listen on one address only.
    `withdrawal`: asks whether no program does, because the relay was withdrawn. `units`: the units
    that `test` starts. `by_relay`: whether it is the relay.
    """

    at: str
    challenge: Challenge
    reload: tuple[str, ...]
    test: ReloadTest | None
    units: tuple[Resource, ...]
    withdrawal: Question | None
    by_relay: bool


@dataclass(frozen=True)
class Issued:
    """A certificate on the host: its files, and the ids that have put them there."""

    fullchain: str
    key: str
    ready: tuple[str, ...]


@dataclass(frozen=True)
class Caller:
    """The user of the host as whom a front connects to the relay.

    `needs`: the ids after which the host has that user.
    """

    user: str
    needs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """A host's listeners, as fronts and relays know them.

    `open_ports`: (protocol, port) of the other sites of a front's program; they stay open.
    `shares`: whether a listener is a front's program that serves the use's port, or leaves it.
    `is_ours`: whether a listener is the relay's, under any runner.
    """

    open_ports: Set[tuple[str, int]]
    shares: Callable[[Listener, Use], bool]
    is_ours: Callable[[Listener], bool]


def nothing(*_: object, **__: object) -> list[Any]:
    """Return an empty list: the answer of a variant that has no part in a question."""
    return []


def never(*_: object, **__: object) -> bool:
    """Return False: the same for a question of yes or no."""
    return False


def after(needs: Iterable[str], resources: Iterable[Resource]) -> list[Resource]:
    """Return the resources, each with these needs as well."""
    return [replace(resource, needs=(*resource.needs, *needs)) for resource in resources]
