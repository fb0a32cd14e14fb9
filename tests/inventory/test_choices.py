"""Each table of choices has exactly the words that the model accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import pytest

from inventory.choices import FIREWALLS, FLAVOURS, FRONTS, SOURCES
from inventory.model import Certificate, Firewall, FirewallModeName, FlavourName, FrontName, Host, SourceName

TABLES = [
    (FRONTS, FrontName, Host, "front"),
    (FLAVOURS, FlavourName, Host, "flavour"),
    (SOURCES, SourceName, Certificate, "source"),
    (FIREWALLS, FirewallModeName, Firewall, "mode"),
]


@pytest.mark.parametrize(("table", "words", "model", "key"), TABLES, ids=[key for *_, key in TABLES])
def test_a_table_has_the_words_of_its_literal(
    table: Mapping[str, Any], words: Any, model: Any, key: str
) -> None:
    assert tuple(table) == get_args(words) == get_args(model.model_fields[key].annotation)
