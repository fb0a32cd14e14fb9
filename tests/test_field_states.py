"""Each state of tests/field_states.toml has its test."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
STATES = tomllib.loads((TESTS / "field_states.toml").read_text())
NAMES = {
    name
    for path in TESTS.rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.M)
}


@pytest.mark.parametrize("kind", STATES)
def test_every_state_has_its_test(kind: str) -> None:
    assert [name for name in STATES[kind].values() if name not in NAMES] == []
