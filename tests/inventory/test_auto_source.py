"""`certificate.source: auto` stands for one of the other words, and it is said why."""

from __future__ import annotations

from typing import Any

import pytest

from inventory.auto_source import explain_source
from inventory.choices import SOURCES, SourceName
from inventory.model import Certificate, External, Host, Ports, Region
from inventory.rules import host_findings

REGION = Region(id=901, code="hk", name="HK")
ZONE = {"challenge": "dns", "dns": {"provider": "cloudflare", "secret": "env:TOKEN"}}


def made(certificate: dict[str, Any], **keys: Any) -> Host:
    keys = {"name": "hk1", "domain": "hk1.example.org", "region": REGION} | keys
    return Host(certificate=Certificate.model_validate({"source": "auto"} | certificate), **keys)


@pytest.mark.parametrize(
    ("certificate", "keys", "source", "why"),
    [
        ({}, {}, "self-signed", "Let's Encrypt needs agree_terms: true"),
        (
            {"agree_terms": True}, {}, "letsencrypt",
            "its terms are accepted, and hk1.example.org can be proved on port 80",
        ),
        (
            {"agree_terms": True}, {"ports": Ports(http=8080)}, "self-signed",
            "Let's Encrypt asks on port 80, and ports.http is 8080",
        ),
        (
            {"agree_terms": True, **ZONE}, {"ports": Ports(http=8080)}, "letsencrypt",
            "its terms are accepted, and hk1.example.org can be proved in its DNS zone",
        ),
        (
            {"agree_terms": True}, {"domain": "203.0.113.10"}, "self-signed",
            "203.0.113.10 is an address, for which Let's Encrypt needs profile: shortlived",
        ),
        (
            {"agree_terms": True, "profile": "shortlived"}, {"domain": "203.0.113.10"}, "letsencrypt",
            "its terms are accepted, and 203.0.113.10 can be proved on port 80",
        ),
        (
            {"agree_terms": True, "server": "https://acme.example.org/directory"}, {}, "acme",
            "server is set",
        ),
        (
            {"agree_terms": True, "fullchain": "chain.pem", "key": "file:key.pem"}, {}, "manual",
            "fullchain and key are set",
        ),
        (
            {"agree_terms": True, "fullchain_path": "/etc/chain.pem", "key_path": "/etc/key.pem"}, {},
            "on-host", "fullchain_path and key_path are set",
        ),
        (
            {"agree_terms": True},
            {"front": "external", "external": External(kind="caddy", tls="terminated")},
            "front", "your front terminates TLS, with a certificate of its own",
        ),
    ],
)  # fmt: skip
def test_the_first_source_that_fits(
    certificate: dict[str, Any], keys: dict[str, Any], source: str, why: str
) -> None:
    host = made(certificate, **keys)
    assert host.source == source
    assert explain_source(host) == f"certificate.source auto is {source} here: {why}"
    assert list(host_findings(host)) == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_is_named_is_taken_and_not_explained(source: SourceName) -> None:
    host = made({"source": source})
    assert (host.source, explain_source(host)) == (source, "")


def test_a_key_without_effect_is_refused_with_the_reason_for_the_source() -> None:
    [finding] = host_findings(made({"names": ["more.example.org"]}))
    assert finding.path == "certificate.names"
    assert finding.message == (
        "has no effect: source self-signed orders no certificate. Remove it "
        "(certificate.source auto is self-signed here: Let's Encrypt needs agree_terms: true)"
    )
