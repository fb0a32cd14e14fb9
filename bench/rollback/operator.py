"""An operator of the lab with releases of their own: verbs are run from a copy of the checkout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import lab
from inventory.checkout import CACHE, CHECKOUT
from tests.e2e.desk import Desk, Ran
from tests.e2e.underway import Event, Underway

_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".cache", ".runs", "__pycache__", ".mypy_cache")


@dataclass(frozen=True)
class Timed:
    """A verb that has ended well, and when each of its events arrived, in `time.monotonic`."""

    ran: Ran
    arrived: list[float]

    def moments(self, host: str, is_it: Callable[[Event], bool]) -> list[float]:
        """Return when these events of a host arrived."""
        pairs = zip(self.ran.events, self.arrived, strict=True)
        return [at for event, at in pairs if event.get("host") == host and is_it(event)]


@dataclass(frozen=True)
class Operator:
    """The lab, and the copy of the checkout."""

    stage: lab.Lab
    checkout: Path
    _numbers: count[int] = field(default_factory=lambda: count(1))

    @classmethod
    def of(cls, stage: lab.Lab, folder: Path) -> Operator:
        """Copy the checkout into that folder. Downloads and builds are shared."""
        checkout = folder / "checkout"
        shutil.copytree(CHECKOUT, checkout, ignore=_LEFT_OUT)
        (checkout / ".cache").symlink_to(CACHE.resolve())
        return cls(stage, checkout)

    def start(self, *words: str) -> Underway:
        """Start a verb in the lab's network."""
        return Underway(self.stage, *words, checkout=self.checkout)

    def run(self, *words: str, code: int = 0) -> Timed:
        """Run a verb for hk1. Raises RuntimeError for another exit code."""
        with self.start(*words, "--host", "hk1") as verb:
            ran = verb.end(timeout_s=600)
        if ran.code != code:
            raise RuntimeError(f"{' '.join(words)} ended with {ran.code}: {ran.why()}")
        return Timed(ran, verb.arrived)

    def make_release(self) -> None:
        """Make the relay of the checkout another release than all before."""
        with (self.checkout / "relay/__init__.py").open("a") as file:
            file.write(f"# release {next(self._numbers)} of this benchmark\n")

    def edit(self, **settings: Any) -> None:
        """Change settings of hk1 in the site file; None removes one."""
        Desk(self.stage).edit("hk1", **settings)
