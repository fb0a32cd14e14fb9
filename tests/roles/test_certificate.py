"""The table of certificate sources: each fits the contract, and no caller asks which one it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.facts import Ask, FileFact
from engine.resource import Absent
from inventory import choices
from inventory.choices import SourceName
from roles import certificate, paths
from roles.certificate import challenges
from roles.contract import Challenge
from tests.roles.cases import load, names, shipment

HOSTS = {host.certificate.source: host for host, _, _ in map(load, names())}


@pytest.mark.parametrize("source", certificate.MODULES)
def test_the_host_orders_from_acme_servers_only(source: SourceName) -> None:
    host = HOSTS.get(source, HOSTS["acme"])
    orders = certificate.MODULES[source].orders(host, Challenge(("--standalone",)))
    assert (orders is not None) == choices.SOURCES[source].is_acme
    assert orders is None or orders.authenticator == ("--standalone",)


def test_an_order_is_answered_by_the_chosen_challenge_alone() -> None:
    host, _, _ = load("dns-wildcard")
    by_front = Challenge(("--webroot",), needs=("file:/ready",), writes=("/var/www",))
    by_zone = challenges.challenge(host, by_front)
    assert "--webroot" not in by_zone.authenticator and not by_zone.writes
    other = host.certificate.model_copy(update={"challenge": "http"})
    by_http = host.model_copy(update={"certificate": other})
    assert challenges.challenge(by_http, by_front) == by_front


@pytest.mark.parametrize("source", choices.SOURCES)
def test_a_secret_of_the_zone_goes_when_it_is_no_longer_used(source: SourceName) -> None:
    host, _, facts = load("bare")
    host = host.model_copy(update={"certificate": host.certificate.model_copy(update={"source": source})})
    left = FileFact(content=None, sha256="", mode="0700", owner="root", group="root")
    there = replace(facts, files={**facts.files, paths.DNS_CREDENTIALS: left})
    gone = Absent(path=paths.DNS_CREDENTIALS)
    assert challenges.resources(host, there, shipment(host)) == [gone]
    assert challenges.resources(host, facts, shipment(host)) == []
    assert gone.id in {resource.id for resource in certificate.absent(facts)}


def test_the_removal_asks_for_every_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that a host had before may be any of them."""
    of_acme = certificate.ask_absent()
    monkeypatch.setattr(certificate.MODULES["manual"], "ASK_ABSENT", Ask(files=("/etc/another/*",)))
    assert set(certificate.ask_absent().files) == {*of_acme.files, "/etc/another/*"}
    assert of_acme.files
