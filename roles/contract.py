"""The values that roles pass to each other. `roles.relay_host` joins them, so that no role imports another to name its resources."""

from __future__ import annotations

from dataclasses import dataclass

from engine.resource import Resource


@dataclass(frozen=True)
class Question:
    """A command, and what it prints when the answer is yes."""

    argv: tuple[str, ...]
    says: str


@dataclass(frozen=True)
class ReloadTest:
    """A command that asks whether a reload would go well, and one that prints the reason when it would not."""

    argv: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Challenge:
    """How an ACME server's challenge is answered: certbot's arguments, and the ids that have to be there first."""

    authenticator: tuple[str, ...]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ServedBy:
    """Who serves the certificate. `withdrawal`: asks whether nobody does, as the relay was withdrawn. `units`: what `test` runs."""

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
