"""Limits of size, and the first words of docstrings. ruff checks the lengths of Python's lines."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.test_docs import CODE, DOCUMENTS, FILES
from tests.test_imports import ROOT

FILE_LINES, FUNCTION_LINES, ATTRIBUTES, TEXT_COLUMNS = 400, 60, 20, 100
# A call per packet would cost a tenth of the relay's speed, and a second object a look-up for each.
HOT_FUNCTION, HOT_CLASS = ("relay/core/session.py", "feed"), ("relay/core/session.py", "Session")
# The relay's command line has a field for each flag, and its counters one for each kind of event.
LISTS = {("relay/config.py", "Config"), ("relay/core/counts.py", "Counts")}
# Names that several classes of the product have. This set may only shrink.
TWICE = {"Host", "Problem", "Relay", "Session"}

PYTHON = sorted(path for path in FILES if path.suffix == ".py")
OUTSIDE_TESTS = [path for path in PYTHON if path.parts[0] != "tests"]
PRODUCT = [path for path in OUTSIDE_TESTS if path.parts[0] != "bench"]
Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
RIDDLE = re.compile(r"\s*(What|Who)(ever)?\b")
GENERATED = re.compile(r"<!-- table -->.*?<!-- end -->", re.DOTALL)


def parsed(path: Path) -> ast.Module:
    """Return the tree of a file of the checkout."""
    return ast.parse((ROOT / path).read_text())


def lines_of(node: Function) -> int:
    """Return how many lines a function has, from `def` or its first decorator to its end."""
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    assert node.end_lineno is not None
    return node.end_lineno - first + 1


def attributes(node: ast.ClassDef) -> set[str]:
    """Return every attribute that a class declares, as dataclasses do, or its __init__ assigns."""
    declared = {
        child.target.id
        for child in node.body
        if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name)
    }
    inits = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"]
    return declared | {
        target.attr
        for init in inits
        for target in ast.walk(init)
        if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store)
        and getattr(target.value, "id", "") == "self"
    }


def classes_in(path: Path) -> list[ast.ClassDef]:
    """Return the classes at the top of a file.

    Without the agent's kind of a resource: those are one thing on both sides of the wire.
    """
    found = [node for node in parsed(path).body if isinstance(node, ast.ClassDef)]
    return [node for node in found if path.parent != Path("files/agent") or node.name not in RESOURCES]


def riddles(tree: ast.AST) -> Iterator[int]:
    """Yield the line of each definition whose docstring begins with What, Who or Whoever."""
    for node in ast.walk(tree):
        if isinstance(node, Documented) and RIDDLE.match(ast.get_docstring(node) or ""):
            yield getattr(node, "lineno", 1)


RESOURCES = {
    node.name
    for name in ("resource", "policy")
    for node in parsed(Path(f"engine/{name}.py")).body
    if isinstance(node, ast.ClassDef)
}


@pytest.mark.parametrize("path", OUTSIDE_TESTS, ids=str)
def test_a_file_fits_the_budget(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= FILE_LINES


def test_a_function_fits_the_budget() -> None:
    nodes = [(str(path), node) for path in OUTSIDE_TESTS for node in ast.walk(parsed(path))]
    functions = [(path, node) for path, node in nodes if isinstance(node, Function)]
    large = {(path, node.name) for path, node in functions if lines_of(node) > FUNCTION_LINES}
    assert large == {HOT_FUNCTION}


def test_no_class_has_become_everything() -> None:
    nodes = [(str(path), node) for path in OUTSIDE_TESTS for node in ast.walk(parsed(path))]
    classes = [(path, node) for path, node in nodes if isinstance(node, ast.ClassDef)]
    assert {"Relay", "Clients"} <= {node.name for _, node in classes}
    large = {(path, node.name) for path, node in classes if len(attributes(node)) > ATTRIBUTES}
    assert large == {HOT_CLASS, *LISTS}


def test_one_name_is_one_class() -> None:
    names = Counter(node.name for path in PRODUCT for node in classes_in(path))
    assert {name for name, times in names.items() if times > 1} == TWICE


def test_docstrings_say_what_is_done() -> None:
    assert [f"{path}:{line}" for path in PYTHON for line in riddles(parsed(path))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_text_of_documents_fits_the_columns(path: Path) -> None:
    """Tables, code and generated parts excepted."""
    text = CODE.sub("", GENERATED.sub("", (ROOT / path).read_text()))
    assert [line for line in text.splitlines() if len(line) > TEXT_COLUMNS and not line.startswith("|")] == []


UNEXPLAINED = re.compile(r"# type: ignore(\[[^\]]*\])?$")


def test_each_ignored_type_error_has_its_reason_beside_it() -> None:
    """It follows on the line, or is a comment above it where the line is full."""
    lines = {path: (ROOT / path).read_text().splitlines() for path in PYTHON}
    found = [
        f"{path}:{number}"
        for path, text in lines.items()
        for number, (above, line) in enumerate(pairwise(["", *text]), start=1)
        if UNEXPLAINED.search(line) and not above.lstrip().startswith("#")
    ]
    assert found == []
    assert UNEXPLAINED.search("x = 1  # type: ignore") and UNEXPLAINED.search("x  # type: ignore[misc]")
    assert not UNEXPLAINED.search("x = 1  # type: ignore[misc]  # as it has none")
