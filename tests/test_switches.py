"""Every word of every choice of the site file is in a walk of tests/e2e/test_switches.py.

A new word, or a new choice, fails here until it has a row there, or a test of its own is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from inventory.choices import CANDIDATES, FLAVOURS
from inventory.model import Host
from roles import certificate, front
from tests.e2e.switches import DEFAULTS, SAME, WALKS
from tests.support.named import NAMES

# Choices that are switched in other tests, which this names.
ELSEWHERE: Mapping[str, str] = {
    "firewall.mode": "test_a_switch_between_any_two_modes_leaves_nothing_of_the_old_one",
    "flavour": "test_flavours_are_combinations_of_a_walk",
    "external.kind": "test_another_kind_of_external_front_has_the_only_fragment",
    "external.tls": "test_another_kind_of_external_front_has_the_only_fragment",
    "certificate.dns.provider": "test_another_provider_leaves_nothing_of_the_former",
    "certificate.certbot": "test_another_certbot_leaves_nothing_but_packages_of_the_former",
}
# Choices that nothing of ours on the host differs by: words within one file, and other packages.
WITHIN = {"certificate.dns.algorithm", "docker.packages", "packages.mirror"}


def choices(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield the keys of a part of the site file that take one of some words, with those."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        for part in parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from choices(part, f"{key}.")
            elif get_origin(part) is Literal:
                yield key, {*get_args(part)}


def parts(annotation: Any) -> Iterator[Any]:
    """Yield a type, or the types that it is made of."""
    if get_origin(annotation) in (None, Literal):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from parts(part)


CHOICES = dict(choices(Host))


def test_the_named_choices_and_tests_are_there() -> None:
    assert set(ELSEWHERE) | WITHIN < set(CHOICES)
    assert [test for test in ELSEWHERE.values() if test not in NAMES] == []


@pytest.mark.parametrize("key", sorted(set(CHOICES) - set(ELSEWHERE) - WITHIN))
def test_one_walk_has_every_word(key: str) -> None:
    walked = [{{**DEFAULTS, **row}.get(key, "") for row in rows} for rows in WALKS.values()]
    needed = CHOICES[key] - set(SAME.get(key, {}))
    assert any(needed <= words for words in walked), (key, needed, walked)


def test_words_that_are_the_same_have_one_module() -> None:
    modules: Mapping[str, Mapping[str, object]] = {
        "front": front.MODULES,
        "certificate.source": {**certificate.MODULES, "auto": certificate.MODULES[CANDIDATES["auto"][-1]]},
    }
    for key, words in SAME.items():
        assert [word for word, other in words.items() if modules[key][word] is not modules[key][other]] == []


def test_flavours_are_combinations_of_a_walk() -> None:
    rows = [row for rows in WALKS.values() for row in rows if "relay.under" in row]
    found = {(row["relay.program"], row["relay.under"]) for row in rows}
    assert found == set(FLAVOURS.values())
