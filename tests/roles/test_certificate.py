"""The table of certificate sources: each fits the contract, and no caller asks which one it is."""

from __future__ import annotations

import pytest

from engine.facts import Ask
from inventory import choices
from inventory.choices import SourceName
from roles import certificate
from roles.contract import Challenge
from tests.roles.cases import load, names

HOSTS = {host.certificate.source: host for host, _, _ in map(load, names())}


@pytest.mark.parametrize("source", certificate.MODULES)
def test_the_host_orders_from_acme_servers_only(source: SourceName) -> None:
    host = HOSTS.get(source, HOSTS["acme"])
    orders = certificate.MODULES[source].orders(host, Challenge(("--standalone",)))
    assert (orders is not None) == choices.SOURCES[source].is_acme
    assert orders is None or orders.authenticator == ("--standalone",)


def test_the_removal_asks_for_every_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that a host had before may be any of them."""
    of_acme = certificate.ask_absent()
    monkeypatch.setattr(certificate.MODULES["manual"], "ASK_ABSENT", Ask(files=("/etc/another/*",)))
    assert set(certificate.ask_absent().files) == {*of_acme.files, "/etc/another/*"}
    assert of_acme.files
