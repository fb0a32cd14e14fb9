"""Artefacts that are made once, and the remains of a maker that failed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from engine.cache import make_once


def test_it_is_made_once_however_many_ask(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(partial: Path) -> None:
        made.append(partial)
        partial.mkdir()
        time.sleep(0.05)
        (partial / "done").touch()

    home = tmp_path / "new" / "thing"
    threads = [threading.Thread(target=make_once, args=(home, make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (home / "done").exists()
    assert len(made) == 1


def test_a_failed_attempt_counts_for_nothing_and_is_replaced(tmp_path: Path) -> None:
    home = tmp_path / "thing"

    def fail(partial: Path) -> None:
        (partial / "half").mkdir(parents=True)
        raise RuntimeError

    def succeed(partial: Path) -> None:
        partial.mkdir()

    with pytest.raises(RuntimeError):
        make_once(home, fail)
    assert not home.exists()
    assert list(make_once(home, succeed).iterdir()) == []
