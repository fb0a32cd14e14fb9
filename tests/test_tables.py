"""Each line of the tables field_states.toml and failures.toml has its test."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.support.named import NAMES

TABLES = {
    (name, kind): lines
    for name in ("field_states", "failures")
    for kind, lines in tomllib.loads(Path(__file__).with_name(f"{name}.toml").read_text()).items()
}


@pytest.mark.parametrize(("name", "kind"), TABLES)
def test_every_line_has_its_test(name: str, kind: str) -> None:
    assert [test for test in TABLES[name, kind].values() if test not in NAMES] == []
