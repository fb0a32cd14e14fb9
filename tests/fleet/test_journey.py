"""The way of a host from `tasks.deploy` to its plan: short, and down only.

Counted are the real calls of `invoke deploy --dry-run`, on a host of tests/roles/cases. A function
is visited when it gets the host as an argument: the `Host`, a list of hosts, or the login. MIDDLE
are the folders between the command line and the roles. A climb is a call from a folder to a higher
one in the order of docs/ARCHITECTURE.md, of any function.
`python -m tests.fleet.test_journey` prints the whole way.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType
from typing import Any

import pytest

import inventory
import tasks
from engine import run
from engine.login import Login
from fleet.shared import host_job, records
from inventory.model import Host
from tests.roles import cases

ROOT = Path(__file__).parent.parent.parent
CASE = "bare"
ORDER = ("inventory", "engine", "artefacts", "roles", "control", "probe", "fleet", "tasks")
MIDDLE = {"engine", "control", "probe", "fleet", "tasks"}
Where = tuple[str, str]  # file, function


class Journey:
    """The functions that a host visits, and the climbs."""

    def __init__(self) -> None:
        self.visited: dict[Where, None] = {}
        self.climbs: dict[tuple[Where, Where], None] = {}

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the calls of all threads inside the block."""
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        here = place(frame.f_code)
        if event != "call" or here is None:
            return
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
        if any(is_host(frame.f_locals.get(name)) for name in names):
            self.visited[here] = None
        before = frame.f_back
        while before is not None and place(before.f_code) is None:
            before = before.f_back
        caller = place(before.f_code) if before else None
        if caller is not None and ORDER.index(room(caller)) < ORDER.index(room(here)):
            self.climbs[caller, here] = None


def place(code: CodeType) -> Where | None:
    """Return where a function is. None for other people's code, and for comprehensions."""
    path = Path(code.co_filename)
    if not path.is_relative_to(ROOT) or (code.co_name.startswith("<") and code.co_name != "<lambda>"):
        return None
    inside = path.relative_to(ROOT)
    return (str(inside), code.co_qualname) if inside.parts[0].removesuffix(".py") in ORDER else None


def room(where: Where) -> str:
    """Return the folder at the top of the tree."""
    return where[0].partition("/")[0].removesuffix(".py")


def is_host(value: object) -> bool:
    """Whether it is a host, its login, or a list of hosts."""
    return isinstance(value, Host | Login) or (
        isinstance(value, list | tuple) and any(isinstance(one, Host) for one in value)
    )


class Planned(BaseException):
    """The plan is there."""


class BareHost:
    """Stands in for the session with a bare Debian host."""

    is_open = True
    facts = cases.facts_of(CASE)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Connect to nothing."""

    def __enter__(self) -> BareHost:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def apply(self, _: object, **__: object) -> None:
        """End the journey."""
        raise Planned


def travel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Journey:
    """Return the journey of the case's host."""
    site = cases.FOLDER / CASE / "site.yml"
    monkeypatch.setattr(run, "Session", BareHost)
    monkeypatch.setattr(host_job, "make_shipment", lambda host, *_, **__: cases.shipment(host))
    monkeypatch.setattr(records, "RUNS", folder)
    monkeypatch.setattr(inventory, "resolve_problems", lambda *_, **__: [])
    monkeypatch.setattr(sys, "argv", ["invoke", "deploy", "--dry-run"])
    [name] = inventory.load(site).hosts
    journey = Journey()
    with journey.recorded(), pytest.raises(Planned):
        tasks.deploy.body(None, host=[name], site=str(site), only=[], dry_run=True, json=True)
    return journey


def test_the_way_to_the_plan_is_short_and_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journey = travel(tmp_path, monkeypatch)
    middle = [where for where in journey.visited if room(where) in MIDDLE]
    assert ("engine/run.py", "converge") in middle
    assert len(middle) <= 13, middle
    assert len(journey.climbs) <= 3, journey.climbs


if __name__ == "__main__":
    with TemporaryDirectory() as runs, pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()):
        found = travel(Path(runs), patch)
    print(f"{len(found.visited)} functions visited: {dict(Counter(map(room, found.visited)))}")
    for file, function in found.visited:
        print(f"  {file} {function}")
    for start, end in found.climbs:
        print(f"  up: {' '.join(start)} -> {' '.join(end)}")
