"""Each state of tests/field_states.toml has its test."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.support.named import NAMES

STATES = tomllib.loads(Path(__file__).with_name("field_states.toml").read_text())


@pytest.mark.parametrize("kind", STATES)
def test_every_state_has_its_test(kind: str) -> None:
    assert [name for name in STATES[kind].values() if name not in NAMES] == []
