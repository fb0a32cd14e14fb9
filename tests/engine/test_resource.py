"""The kinds of resources, as the plan reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from engine.resource import Resource, Service


def kinds(of: type[Resource] = Resource) -> Iterator[type[Resource]]:
    """Yield every kind of the product, that is each class below Resource with a `kind`."""
    for one in of.__subclasses__():
        if "kind" in vars(one) and one.__module__ == "engine.resource":
            yield one
        yield from kinds(one)


@pytest.mark.parametrize("kind", [*kinds()], ids=lambda kind: kind.kind)
def test_a_kind_names_its_own_fields(kind: type[Resource]) -> None:
    """`named_by` and `triggered_by` are words, which no type checker compares with the fields."""
    fields = {field.name for field in dataclasses.fields(kind)}
    named_by = "unit" if kind is Service else kind.named_by
    assert {named_by, *kind.triggered_by} <= fields
    of_ids = {field for field in fields if field.endswith(("restart_on", "reload_on", "on_change"))}
    assert set(kind.triggered_by) == of_ids


def test_every_kind_is_looked_at() -> None:
    assert {"file", "service", "container", "program"} <= {kind.kind for kind in kinds()}
