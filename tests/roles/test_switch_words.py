"""Choices whose variants differ in a few files: none of a former variant is left in the plan.

The others are walked through on a host, by tests/e2e/test_switches.py.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any, get_args

import pytest

import roles
from engine.resource import Command, File, Package, Resource
from inventory.acme import DnsZone
from inventory.choices import DNS_PROVIDERS, EXTERNALS, DnsProviderName, ExternalName
from inventory.model import External, Host
from roles import paths
from tests.roles.cases import load, shipment
from tests.roles.test_absent import covers, deployed

KINDS = [(kind, tls) for kind, row in EXTERNALS.items() for tls in row.tls]


def external(kind: ExternalName, tls: Any) -> Host:
    host, _, _ = load("front-external-haproxy")
    return host.model_copy(update={"external": External(kind=kind, tls=tls)})


def zone(provider: DnsProviderName) -> Host:
    host, _, _ = load("dns-wildcard")
    row = DNS_PROVIDERS[provider]
    values = {"server": "203.0.113.53", "key_name": "derpfleet", "access_key": "KEY-ID"}
    keys = {key: values[key] for key in row.needs}
    dns = DnsZone.model_validate({"provider": provider, "secret": "env:TSIG", **keys})
    return host.model_copy(update={"certificate": host.certificate.model_copy(update={"dns": dns})})


def certbot(word: Any) -> Host:
    host, _, _ = load("bare")
    return host.model_copy(update={"certificate": host.certificate.model_copy(update={"certbot": word})})


def left(case: str, before: Host, now: Host) -> list[str]:
    """Return the ids in the plan of `before` that the plan of `now` neither has nor removes."""
    _, site, facts = load(case)
    former = roles.compile_host(before, site, facts, shipment(before))
    resources = roles.compile_host(now, site, deployed(facts, former), shipment(now))
    wanted = {resource.id for resource in resources}
    there = [r for r in former if not isinstance(r, Command)]
    return [r.id for r in there if r.id not in wanted and not any(covers(gone, r) for gone in resources)]


def fragments(resources: list[Resource]) -> list[str]:
    return [r.path for r in resources if isinstance(r, File) and r.path.startswith(f"{paths.FRONT}/")]


@pytest.mark.parametrize(("one", "other"), [*permutations(KINDS, 2)])
def test_another_kind_of_external_front_has_the_only_fragment(
    one: tuple[ExternalName, Any], other: tuple[ExternalName, Any]
) -> None:
    case = "front-external-haproxy"
    assert left(case, external(*one), external(*other)) == []
    _, site, facts = load(case)
    host = external(*other)
    [path] = fragments(roles.compile_host(host, site, facts, shipment(host)))
    assert path == f"{paths.FRONT}/{other[0]}.conf"


@pytest.mark.parametrize(("one", "other"), [*permutations(get_args(DnsProviderName), 2)])
def test_another_provider_leaves_nothing_of_the_former(
    one: DnsProviderName, other: DnsProviderName
) -> None:
    assert left("dns-wildcard", zone(one), zone(other)) == []


@pytest.mark.parametrize(("one", "other"), [*permutations(("shipped", "distribution"), 2)])
def test_another_certbot_leaves_nothing_but_packages_of_the_former(one: str, other: str) -> None:
    found = left("bare", certbot(one), certbot(other))
    assert [id for id in found if not id.startswith(Package.kind)] == []
