"""A stand-in for the session with a relay host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from engine.facts import Ask, Facts, Output
from tests.support.facts import DEBIAN_12


def printing(texts: Mapping[str, str], *, on_stderr: bool = False) -> Facts:
    """Return the facts of a Debian host whose commands, by name, print these texts."""
    pairs = {name: ("", text) if on_stderr else (text, "") for name, text in texts.items()}
    return replace(
        DEBIAN_12,
        commands={name: Output(status=0, stdout=out, stderr=err) for name, (out, err) in pairs.items()},
    )


class AnsweringHost:
    """A session with a host.

    `first`, `later`: the texts that its commands print, of the session's first questions and of
    every other. `on_stderr`: the later texts are printed there. `asked`: the later questions.
    """

    def __init__(
        self, *, first: Mapping[str, str] | None = None, later: Mapping[str, str], on_stderr: bool = False
    ) -> None:
        self.asked: list[Ask] = []
        self.facts = printing(first or {})
        self._later = printing(later, on_stderr=on_stderr)

    def __enter__(self) -> AnsweringHost:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, ask: Ask) -> Facts:
        self.asked.append(ask)
        return replace(self.facts, commands={**self.facts.commands, **self._later.commands})
