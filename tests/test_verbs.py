"""Each verb is a name in `tasks.py` and a file in `fleet/`, which imports no other verb."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_imports import ROOT, imported

VERBS = sorted(path for path in (ROOT / "fleet").glob("*.py") if path.stem != "__init__")


def shared(module: str) -> bool:
    return f"{module}.".startswith("fleet.shared.")


@pytest.mark.parametrize("path", VERBS, ids=lambda path: path.stem)
def test_a_verb_imports_no_verb(path: Path) -> None:
    assert [
        module for module in imported(path) if module.split(".")[0] == "fleet" and not shared(module)
    ] == []


def test_shared_code_imports_no_verb() -> None:
    files = sorted((ROOT / "fleet" / "shared").glob("*.py"))
    assert files
    assert [
        f"{path.name}: {module}"
        for path in files
        for module in imported(path)
        if module.split(".")[0] == "fleet" and not shared(module)
    ] == []


NAMING = ["tasks.py", "lab_tasks.py", "operator_tasks.py", "rollout_tasks.py", "service_tasks.py"]


@pytest.mark.parametrize("name", NAMING)
def test_naming_verbs_takes_few_lines(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= 200
