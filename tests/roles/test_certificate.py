"""The table of certificate sources: each fits the contract, and no caller asks which one it is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from engine.facts import Ask, FileFact
from engine.resource import Absent
from inventory import choices
from inventory.choices import SourceName
from inventory.model import Host
from roles import certificate, paths
from roles.certificate import challenges
from roles.contract import Challenge
from roles.wiring import wire
from tests.roles.cases import FOLDER, deployable, load, names, shipment
from tests.support.facts import DEBIAN_12

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


HK1 = {"name": "hk1", "domain": "hk1.example.org", "region": {"id": 901, "code": "hk", "name": "HK"}}
OWN = "/etc/derpfleet/certificates"
LETSENCRYPT = {"source": "letsencrypt", "contact": "ops@example.org"}
MANUAL = {"source": "manual", "fullchain": "chain.pem", "key": "file:key.pem"}


@pytest.mark.parametrize(
    ("front", "source", "gone"),
    [
        ("nginx", LETSENCRYPT, [paths.RELAY_CERTS, OWN]),
        ("nginx", MANUAL, [paths.RELAY_CERTS, f"{OWN}/old.example.org"]),
        ("none", MANUAL, [f"{OWN}/old.example.org"]),
        ("nginx-stream", {"source": "self-signed"}, [f"{OWN}/old.example.org"]),
        ("none", LETSENCRYPT, [OWN]),
    ],
)
def test_a_private_key_that_is_no_longer_read_goes(
    front: str, source: dict[str, object], gone: list[str]
) -> None:
    host = Host(**HK1, front=front, certificate=source)
    folder = FileFact(content=None, sha256="", mode="0700", owner="root", group="root")
    there = {f"{OWN}/{name}.example.org": folder for name in ("hk1", "old")}
    facts = replace(DEBIAN_12, files=there if f"{OWN}/*" in certificate.ask(host).files else {})
    copied = wire(host).relay_has_tls
    found = certificate.replaced_others(host, facts, copied=copied, needs=("x",))
    paths_of_keys = [path for one in found if (path := one.owned_path()).startswith((OWN, paths.STATE))]
    assert paths_of_keys == gone
    assert all("x" in resource.needs for resource in found)


def test_certbot_stays_for_a_rollback_when_another_source_follows_and_goes_with_the_relay() -> None:
    host = Host(**HK1, front="none", certificate=MANUAL)
    found = certificate.replaced_others(host, DEBIAN_12, copied=True, needs=())
    assert Absent(path=paths.CERTBOT, unless_kept=paths.CERTBOT) in found
    assert Absent(path=paths.CERTBOT) in certificate.absent(DEBIAN_12)


@pytest.mark.parametrize("name", deployable())
def test_keys_go_only_after_the_host_works_without_them(name: str) -> None:
    host, _, _ = load(name)
    resources = json.loads((FOLDER / name / "plan.json").read_text())["resources"]
    by_id = {resource["id"]: resource for resource in resources}
    ids = {f"{kind}:{paths.RELAY_CERTS}" for kind in ("absent", "directory")} & set(by_id)
    assert len(ids) == 1
    is_read = wire(host).relay_has_tls
    assert ids.pop().startswith("directory" if is_read else "absent")
    if not is_read:
        needs = by_id[f"absent:{paths.RELAY_CERTS}"]["needs"]
        assert needs[0].startswith(("command:served", "service:", "container:", "program:"))
