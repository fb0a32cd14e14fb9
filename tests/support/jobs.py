"""Jobs for tests: resources that are known before the host is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.facts import Ask
from engine.plan import Mode
from engine.resource import Resource
from engine.run import NOTHING, Job, Verb


def fixed(
    resources: Iterable[Resource], *, mode: Mode = "apply", ask: Ask = NOTHING, only: Sequence[str] = ()
) -> Job:
    """Return the job of these resources."""
    verb = Verb.CHECK if mode == "check" else Verb.DEPLOY
    return Job(verb=verb, plan=lambda _: resources, ask=ask, only=only)
