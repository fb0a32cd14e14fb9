"""Stand-ins for the generations of a host, and for a plan of it that is armed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.facts import Ask, Facts
from engine.generations import Generation, History, UnconfirmedChanges
from engine.run import Outcome
from fleet.shared.seen import settings
from tests.roles.cases import load
from tests.support.facts import DEBIAN_12

HOST, SITE, _ = load("bare")
LEFT = UnconfirmedChanges(plan="sha256:x", who="bob@desk", verb="deploy", since=1.0)


def generation(number: int, plan: str, **more: Any) -> Generation:
    about = more.pop("about", {"release": f"relay {plan}", "seen": settings(HOST)})
    return Generation(number=number, plan=plan, who="ann@desk", verb="deploy", about=about, **more)


def known(*generations: Generation, left: UnconfirmedChanges | None = None) -> History:
    return History(generations=generations, unconfirmed=left or UnconfirmedChanges())


KNOWN = known(generation(3, "b"), generation(2, "b"), generation(1, "a"))


class Armed:
    """Stands in for a session with an armed plan. `words`: those that it was told."""

    def __init__(self, generation: int) -> None:
        """The generation to go back to."""
        self.generation, self.is_stopping = generation, False
        self.words: list[str] = []
        self.came_along: History | None = None

    def history(self) -> History:
        return KNOWN

    def ask(self, _: Ask) -> Facts:
        return DEBIAN_12

    def hold(self) -> None:
        self.words.append("hold")

    def pause(self, seconds: float) -> None:
        assert seconds > 0

    def keep(self, _: Mapping[str, str]) -> bool:
        self.words.append("keep")
        return True

    def back(self) -> bool:
        self.words.append("back")
        return True

    def leave(self) -> None:
        self.words.append("leave")


def outcome(**more: Any) -> Outcome:
    return Outcome("hk1", "apply", {}, DEBIAN_12, Path("log"), **more)
