"""Each state of tests/field_states.toml has its test."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
STATES = tomllib.loads((TESTS / "field_states.toml").read_text())


@cache
def names_in(path: Path) -> set[str]:
    """Return the names of a file's tests."""
    nodes = ast.walk(ast.parse(path.read_text()))
    functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


@pytest.mark.parametrize("kind", STATES)
def test_every_state_has_its_test(kind: str) -> None:
    places = [place.split("::") for place in STATES[kind].values()]
    assert [[file, name] for file, name in places if name not in names_in(TESTS / file)] == []
