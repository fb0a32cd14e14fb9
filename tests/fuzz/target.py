"""A target of fuzzing: a reader, the errors that it may raise, and what its cases are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Target:
    """`modules`: those whose lines count as reached. `words`: bytes that mean something to them."""

    name: str
    call: Callable[[bytes], Any]
    modules: Sequence[ModuleType]
    allowed: tuple[type[Exception], ...] = ()
    words: Sequence[bytes] = field(default=(b"\0", b"\xff" * 4))

    @property
    def files(self) -> list[str]:
        return [str(module.__file__) for module in self.modules]
