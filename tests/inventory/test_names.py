"""Names are looked up before any host is contacted."""

import socket
import threading
from ipaddress import ip_address

import pytest

import inventory
from inventory.names import resolve

SITE = """\
hosts:
  hk1:
    domain: hk1.example.org
    ipv4: 203.0.113.10
    ipv6: 2001:db8::10
    region: {id: 900, code: hk, name: Hong Kong}
    certificate: {agree_terms: true}
  ip1:
    domain: 203.0.113.20
    region: {id: 901, code: ip, name: By address}
    certificate: {source: self-signed}
headscale:
  url: https://hs.example.org
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site.yml").write_text(SITE)
    return inventory.load(tmp_path / "site.yml")


def resolver(**names):
    def ask(name):
        if name not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return {ip_address(address) for address in names[name]}

    return ask


def problems_of(site, names, **options):
    return [str(problem) for problem in inventory.resolve_problems(site, resolver(**names), **options)]


GOOD = {"hk1.example.org": ["203.0.113.10", "2001:db8::10"], "hs.example.org": ["203.0.113.30"]}


def test_all_is_well(site):
    assert problems_of(site, GOOD) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"hk1.example.org": []},
            "line 3: hosts.hk1.domain: hk1.example.org does not resolve: it has no address",
        ),
        (
            {"hk1.example.org": ["104.16.0.1", "104.16.0.2"]},
            "line 3: hosts.hk1.domain: hk1.example.org leads to 104.16.0.1, 104.16.0.2, not to 203.0.113.10: "
            "correct the DNS record (a CDN in front passes no DERP)",
        ),
        (
            {"hk1.example.org": ["203.0.113.10", "2001:db8::11"]},
            "line 3: hosts.hk1.domain: hk1.example.org leads to 2001:db8::11, not to 2001:db8::10: "
            "correct the DNS record (a CDN in front passes no DERP)",
        ),
        ({"hk1.example.org": ["203.0.113.10", "203.0.113.11"]}, None),  # one of the two is the right one
        (
            {"hk1.example.org": ["203.0.113.10"]},
            None,
        ),  # no AAAA record: clients take the address from the map
    ],
)
def test_where_a_domain_leads(site, change, problem):
    assert problems_of(site, GOOD | change) == ([problem] if problem else [])


def test_names_that_do_not_resolve_are_all_reported(site):
    assert problems_of(site, {}) == [
        "line 3: hosts.hk1.domain: hk1.example.org does not resolve: Name or service not known",
        "line 13: headscale.url: hs.example.org does not resolve: Name or service not known",
    ]


def test_only_the_hosts_that_are_asked_for(site):
    assert problems_of(site, {"hs.example.org": ["203.0.113.30"]}, only=["ip1"]) == []


def test_lookups_run_side_by_side(site):
    both = threading.Barrier(2, timeout=5)

    def slow(name):
        both.wait()
        return resolver(**GOOD)(name)

    assert inventory.resolve_problems(site, slow) == []


def test_the_line_is_left_out_when_the_file_has_gone(site, tmp_path):
    (tmp_path / "site.yml").unlink()
    assert problems_of(site, {"hs.example.org": ["203.0.113.30"]}) == [
        "hosts.hk1.domain: hk1.example.org does not resolve: Name or service not known"
    ]


def test_the_systems_resolver():
    assert ip_address("127.0.0.1") in resolve("localhost")
