"""The verbs are names in `tasks.py` and a file each in `fleet/`. No verb knows another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_imports import ROOT, imported

VERBS = sorted(path for path in (ROOT / "fleet").glob("*.py") if path.stem != "__init__")


def shared(module: str) -> bool:
    return f"{module}.".startswith("fleet.shared.")


@pytest.mark.parametrize("path", VERBS, ids=lambda path: path.stem)
def test_a_verb_imports_no_verb(path: Path) -> None:
    found = [module for module in imported(path) if module.split(".")[0] == "fleet"]
    assert [module for module in found if not shared(module)] == []


def test_what_verbs_share_knows_no_verb() -> None:
    files = sorted((ROOT / "fleet" / "shared").glob("*.py"))
    assert files
    found = [(path.name, module) for path in files for module in imported(path)]
    found = [(name, module) for name, module in found if f"{module}.".startswith("fleet.")]
    assert [(name, module) for name, module in found if not shared(module)] == []


@pytest.mark.parametrize("name", ["tasks.py", "lab_tasks.py"])
def test_naming_verbs_takes_few_lines(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= 200
