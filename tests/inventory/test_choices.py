"""Each table of choices has exactly the words that the model accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import pytest

from inventory import choices
from inventory.acme import DnsZone
from inventory.model import Certificate, External, Firewall, Host, Region, Relay

TABLES = [
    (choices.FRONTS, choices.FrontName, Host, "front"),
    (choices.FLAVOURS, choices.FlavourName, Host, "flavour"),
    (choices.CANDIDATES, choices.SourceWord, Certificate, "source"),
    (choices.CHALLENGES, choices.ChallengeName, Certificate, "challenge"),
    (choices.DNS_PROVIDERS, choices.DnsProviderName, DnsZone, "provider"),
    (choices.FIREWALLS, choices.FirewallModeName, Firewall, "mode"),
    (choices.EXTERNALS, choices.ExternalName, External, "kind"),
    (choices.ENDS_TLS, choices.TlsName, External, "tls"),
]


@pytest.mark.parametrize(("table", "words", "model", "key"), TABLES, ids=[key for *_, key in TABLES])
def test_a_table_has_the_words_of_its_literal(
    table: Mapping[str, Any], words: Any, model: Any, key: str
) -> None:
    assert tuple(table) == get_args(words) == get_args(model.model_fields[key].annotation)


@pytest.mark.parametrize(
    ("table", "words", "key"),
    [
        (choices.PROGRAMS, choices.ProgramName, "program"),
        (choices.RUNNERS, choices.RunnerName, "under"),
        (choices.ADMISSIONS, choices.AdmissionName, "admission"),
    ],
    ids=["program", "under", "admission"],
)
def test_a_table_of_the_relays_parts_has_the_words_of_its_literal(
    table: Mapping[str, Any], words: Any, key: str
) -> None:
    assert tuple(table) == get_args(words)
    assert Relay.model_fields[key].annotation == words | None


@pytest.mark.parametrize("flavour", get_args(choices.FlavourName))
def test_the_short_and_the_long_form_are_the_same_relay(flavour: choices.FlavourName) -> None:
    region, combination = Region(id=901, code="hk", name="HK"), choices.FLAVOURS[flavour]
    short = Host(name="hk1", domain="hk1.example.org", region=region, flavour=flavour)
    long = Host(name="hk1", domain="hk1.example.org", region=region, relay=Relay(**combination._asdict()))
    assert (short.program, short.runner) == (long.program, long.runner) == combination
    assert choices.flavour_name(short) == choices.flavour_name(long) == flavour


def test_each_program_and_each_runner_is_part_of_a_flavour() -> None:
    """Whether the rules can name a combination that works instead of one that does not."""
    assert {one.program for one in choices.FLAVOURS.values()} == set(choices.PROGRAMS)
    assert {one.under for one in choices.FLAVOURS.values()} == set(choices.RUNNERS)
