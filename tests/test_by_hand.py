"""Each row of docs/BY_HAND.md names keys that exist, and has its tests."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

import inventory
import roles
from inventory.model import Host, Site
from tests.roles.cases import facts_of
from tests.support.named import NAMES

TESTS = tomllib.loads(Path(__file__).with_name("by_hand.toml").read_text())
PAGE = (Path(__file__).parent.parent / "docs/BY_HAND.md").read_text()
ROWS = dict(re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]*)\|", PAGE, re.M))


def exists(key: str, model: type[BaseModel]) -> bool:
    """Whether a model has a key, dotted for the keys of its parts."""
    first, _, rest = key.partition(".")
    field = model.model_fields.get(first)
    if field is None or not rest:
        return field is not None
    parts = [field.annotation, *getattr(field.annotation, "__args__", ())]
    models = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
    return any(exists(rest, part) for part in models)


@pytest.mark.parametrize("row", ROWS)
def test_the_keys_of_a_row_exist(row: str) -> None:
    keys = [word.partition(":")[0] for word in re.findall(r"`([^`]+)`", ROWS[row])]
    assert [key for key in keys if not exists(key, Host) and not exists(key, Site)] == []


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_tests(row: str) -> None:
    assert TESTS[row] and [name for name in TESTS[row] if name not in NAMES] == []


@pytest.mark.parametrize("case", ["el9", "bare"])
def test_the_whole_site_file_is_deployed_as_it_is(case: str, tmp_path: Path) -> None:
    """On a host as the tutorials have it, and on a Debian."""
    [text] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "site.yml").write_text(text)
    site = inventory.load(tmp_path / "site.yml")
    assert roles.refusals(site.hosts["hk1"], site, facts_of(case)) == []


def test_the_page_has_a_row_for_each_list_of_tests() -> None:
    assert list(ROWS) == list(TESTS)
    assert exists("certificate.source", Host) and not exists("certificate.sauce", Host)
