"""Which certificates are known by their SHA-256, and from where."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from engine.facts import Facts, FileFact
from engine.report import Report
from engine.run import NOTHING, Outcome
from fleet.shared import pins
from fleet.shared.fleet import Fleet
from inventory.model import Certificate, Host, Region, Site, Ssh
from lab.certificates import make_server_certificate
from tests.support.facts import DEBIAN_12

DOMAIN = "hk1.example.org"
CHAIN = f"/etc/derpfleet/certificates/{DOMAIN}/fullchain.pem"


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(Fleet, "runs", tmp_path / "runs")
    return Fleet(site(host(), tmp_path), Report(json_lines=True))


def site(one: Host, folder: Path) -> Site:
    return Site(path=str(folder / "site.yml"), hosts={one.name: one}, known_hosts=str(folder / "known_hosts"))


def host(*, domain: str = DOMAIN, source: str = "self-signed", pin: str | None = None) -> Host:
    certificate = Certificate(source=source, pin=pin)  # type: ignore[arg-type]  # words of the table
    region = Region(id=901, code="hk", name="Hong Kong")
    closed = Ssh(address="127.0.0.1", port=9)  # nothing listens there, so a connection fails
    return Host(name="hk1", domain=domain, region=region, certificate=certificate, ssh=closed)


def seen(content: str | None) -> Facts:
    return replace(
        DEBIAN_12,
        files={CHAIN: FileFact(content=content, sha256="", mode="0644", owner="root", group="root")},
    )


def test_the_first_certificate_of_the_file_counts_and_is_kept(fleet: Fleet) -> None:
    authority, leaf, _ = make_server_certificate(DOMAIN, IPv4Address("192.0.2.1"))
    wanted = hashlib.sha256(ssl.PEM_cert_to_DER_cert(leaf.decode())).hexdigest()
    assert pins.learn(fleet, host(), seen((leaf + authority).decode())) == wanted
    assert pins.known(fleet, [host()]) == {"hk1": wanted}


@pytest.mark.parametrize("facts", [DEBIAN_12, seen(None), seen("no certificate")])
def test_where_there_is_no_certificate_nothing_is_learnt(fleet: Fleet, facts: Facts) -> None:
    assert pins.learn(fleet, host(), facts) is None
    assert not fleet.runs.exists()


def test_a_kept_pin_of_another_name_does_not_count(fleet: Fleet) -> None:
    _, leaf, _ = make_server_certificate(DOMAIN, IPv4Address("192.0.2.1"))
    pins.learn(fleet, host(), seen(leaf.decode()))
    assert pins.known(fleet, [host(domain="hk2.example.org")]) == {}  # reported, not raised


@pytest.mark.parametrize(
    ("given", "pins_known"), [(host(pin="ab" * 32), {"hk1": "ab" * 32}), (host(source="letsencrypt"), {})]
)
def test_the_site_file_decides_without_asking_a_host(
    fleet: Fleet, given: Host, pins_known: dict[str, str]
) -> None:
    assert not pins.needed(given)
    assert pins.known(fleet, [given]) == pins_known


def test_a_run_that_leaves_the_certificate_alone_does_not_ask_for_it_again() -> None:
    """The answer from before it is still true, and costs no turn."""

    def after(facts: Facts, changed: list[str]) -> bool:
        outcome = Outcome("hk1", "apply", {}, facts, Path("/dev/null"), changed=changed)
        return pins.ask_after(host(), outcome) == pins.ask(host()) != NOTHING

    assert not after(seen("PEM"), [])
    assert not after(seen("PEM"), ["service:derpfleet-relay.service", "command:served certificate"])
    assert after(seen("PEM"), ["command:certificate"])
    assert after(DEBIAN_12, [])
    outcome = Outcome("hk1", "apply", {}, DEBIAN_12, Path("/dev/null"), changed=["file:x"])
    assert pins.ask_after(host(source="letsencrypt"), outcome) == NOTHING
