"""Lines of others that say something about our name and ports are seen before any change."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from engine.facts import Output
from engine.resource import File
from roles.front import nginx
from roles.front.nginx import neighbours
from tests.roles.front.test_neighbours import ISSUED, a_file, host, there

FOUR = "203.0.113.10"
BY_HAND = "listen 443 ssl;\n server_name www.example.org\n  hk1.example.org;"


def refusals(*servers: str) -> list[str]:
    return nginx.refusals(host(), replace(there(*servers), addresses=(FOUR,)))


@pytest.mark.parametrize(
    "text", [BY_HAND, "listen 80; server_name HK1.example.org;", "listen 80; server_name .hk1.example.org;"]
)
def test_a_server_that_has_our_name_is_refused_with_its_line(text: str) -> None:
    (sentence,) = refusals("listen 8080;", text)
    line = 2 if text == BY_HAND else 1
    assert "hk1.example.org already has a server in nginx on hk1, for port " in sentence
    assert f"(/etc/nginx/conf.d/1.conf:{line})" in sentence


def test_the_name_of_the_machine_may_be_ours() -> None:
    facts = replace(there("listen 80; server_name $hostname;"), hostname="HK1.example.org")
    (sentence,) = nginx.refusals(host(), facts)
    assert "hk1.example.org already has a server in nginx on hk1, for port 80" in sentence


@pytest.mark.parametrize(
    ("last", "servers", "refused"),
    [
        ("", ("listen 80; server_name a.org;",), False),
        ("server { listen 80; server_name a.org; }", (), True),  # in nginx.conf, after our folder
        ("server { listen 80 default_server; }", (), False),
        ("server { listen 80; server_name a.org; }", ("listen 80; server_name b.org;",), False),
        ("server { listen 8080; server_name a.org; }", (), False),
        ("server { listen 203.0.113.10:443 ssl; }", (), True),
    ],
)
def test_a_site_that_is_the_default_by_its_place_is_not_overtaken(
    last: str, servers: tuple[str, ...], refused: bool
) -> None:
    facts = there(*servers)
    dump = facts.commands["nginx"].stdout.replace("*.conf; }", f"*.conf;\n{last} }}")
    facts = replace(facts, commands={"nginx": Output(status=0, stdout=dump, stderr="")}, addresses=(FOUR,))
    found = nginx.refusals(host(), facts)
    assert bool(found) == refused
    if refused:
        assert "add default_server to its listen (/etc/nginx/nginx.conf:2)" in found[0]


def test_a_site_that_sorts_after_ours_is_not_overtaken() -> None:
    facts = there("listen 80; server_name a.org;", files=("/etc/nginx/conf.d/zz-shop.conf",))
    (sentence,) = nginx.refusals(host(), facts)
    assert "(/etc/nginx/conf.d/zz-shop.conf:1)" in sentence
    ours = {**facts.files, "/etc/nginx/conf.d/zz-derpfleet-http.conf": a_file("")}
    assert nginx.refusals(host(), replace(facts, files=ours)) == []  # it came later


@pytest.mark.parametrize(
    "text",
    [
        "listen 8080; server_name hk1.example.org;",
        "listen 80; server_name *.example.org .example.org ~^hk1;",
        "listen 443 ssl; server_name a.org;",
        "listen 443; ssl on; server_name a.org;",
        "listen 443; listen 8443 ssl proxy_protocol; listen 127.0.0.1:443 ssl; ssl on;",
        "listen 443 quic reuseport; listen 443 ssl reuseport; http3 on;",
        f"listen {FOUR}:443 ssl backlog=1024;",
    ],
)
def test_what_works_beside_ours_is_not_refused(text: str) -> None:
    assert refusals(text) == []


@pytest.mark.parametrize(
    ("text", "six", "refused"),
    [
        ("listen 443 ssl; server_name a.org;", "", True),
        (f"listen {FOUR}:443 ssl; server_name a.org;", "", True),
        ("listen [::]:443 ssl; server_name a.org;", "2001:db8::10", True),
        ("listen 10.0.0.5:443 ssl; listen 127.0.0.1:443 ssl; listen 8443 ssl;", "", False),
        ("listen 80; server_name a.org;", "", False),
    ],
)
def test_a_relay_known_by_its_address_has_no_other_site_beside_it(text: str, six: str, refused: bool) -> None:
    """nginx would show clients, who say no name, the other site's certificate."""
    by_address = host().model_copy(update={"domain": FOUR, "ipv6": IPv6Address(six) if six else None})
    facts = replace(there(text), addresses=(FOUR,))
    found = nginx.refusals(by_address, facts)
    words = "say no name in TLS, as it is an address"
    assert [words in sentence and "/etc/nginx/conf.d/0.conf:1" in sentence for sentence in found] == (
        [True] * refused
    )
    behind = by_address.model_copy(update={"front": "nginx-stream"})  # which hands them on to the relay
    assert not [sentence for sentence in nginx.refusals(behind, facts) if words in sentence]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("listen 443 ssl proxy_protocol;", "expects the PROXY protocol"),
        ("listen [::]:80 proxy_protocol;", "expects the PROXY protocol"),
        ("listen 443;", "without TLS, and the relay needs port 443 with it"),
        ("listen 80 ssl;", "with TLS, and the relay needs port 80 without it"),
        ("listen web.example.org:443 ssl;", "by the name of a host: write the address"),
        ("listen 10.0.0.5:443 ssl backlog=64;", "with a socket of its own (backlog=64)"),
    ],
)
def test_a_listen_that_ours_cannot_share_is_refused_with_its_line(text: str, why: str) -> None:
    (sentence,) = refusals("listen 8080;", f"server_name a.org;\n{text}")
    assert why in sentence and "(/etc/nginx/conf.d/1.conf:2)" in sentence


def test_the_welcome_page_of_nginx_org_stays_and_the_relays_check_is_found_by_address() -> None:
    text = "listen 80; server_name localhost; root /usr/share/nginx/html;"
    facts = there(text, files=(neighbours.ORG_SITE,))
    assert neighbours.by_address(host(), facts) == ((), "")
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    listed = Output(status=0, stdout=f" {neighbours.ORG_SITE} {digest}\n", stderr="")
    files = {**facts.files, neighbours.ORG_SITE: a_file(text)}
    packaged = replace(facts, files=files, commands={**facts.commands, "nginx_org_conffiles": listed})
    assert neighbours.by_address(host(), packaged) == ((FOUR,), "")
    assert nginx.refusals(host(), packaged) == []
    resources = nginx.http_resources(host(), packaged, ISSUED)
    written = [resource.path for resource in resources if isinstance(resource, File)]
    assert neighbours.MAIN not in written and "/etc/nginx/conf.d/zz-derpfleet-http.conf" in written
    changed = replace(packaged, files={**files, neighbours.ORG_SITE: a_file(text + "# mine")})
    assert neighbours.by_address(host(), changed) == ((), "")
