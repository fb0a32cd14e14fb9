"""Where our servers listen beside others, and whose line breaks nginx's configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest

import roles
from engine.facts import Facts, Output
from engine.resource import File, Service
from inventory.model import Site
from roles.front import nginx
from roles.front.nginx import clashes, neighbours, places
from tests.roles.front.test_neighbours import ISSUED, a_file, host, nginx_facts, there

FOUR = "203.0.113.10"
ALL = ["443 ssl", "[::]:443 ssl"]


def listens(*servers: str, addresses: tuple[str, ...] = (FOUR, "2001:db8::10")) -> list[str]:
    facts = replace(there(*servers), addresses=("127.0.0.1", "::1", *addresses))
    relay = host(ipv6="2001:db8::10")
    return places.listens(relay, facts, 443, neighbours.HTTPS_NAME, tls=True)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("", ALL),
        ("listen 443 ssl; listen [::]:443 ssl ipv6only=on;", ALL),
        ("listen 443 ssl default_server reuseport; listen [::]:443 ssl default_server;", ALL),
        ("listen 0.0.0.0:443 ssl; listen [0::0]:443 ssl;", ALL),
        ("listen 127.0.0.1:443 ssl;", ["443 ssl", "127.0.0.1:443 ssl", "[::]:443 ssl"]),
        ("listen localhost:443 ssl;", ["443 ssl", "127.0.0.1:443 ssl", "[::]:443 ssl"]),
        ("listen 127.0.0.1:443 ssl; listen localhost:443 ssl;", ["443 ssl", "127.0.0.1:443 ssl", ALL[1]]),
        ("listen 100.64.0.5:443 ssl;", ["443 ssl", "100.64.0.5:443 ssl", "[::]:443 ssl"]),
        ("listen 10.0.0.5:443 ssl;", ["443 ssl", "10.0.0.5:443 ssl", "[::]:443 ssl"]),
        ("listen 203.0.113.99:443 ssl;", ["443 ssl", "203.0.113.99:443 ssl", "[::]:443 ssl"]),
        (f"listen {FOUR}:443 ssl;", ["127.0.0.1:443 ssl", f"{FOUR}:443 ssl", "[::]:443 ssl"]),
        (f"listen {FOUR}:443 ssl; listen 443 ssl;", ["443 ssl", f"{FOUR}:443 ssl", "[::]:443 ssl"]),
        ("listen [2001:DB8::10]:443 ssl;", ["443 ssl", "[2001:db8::10]:443 ssl"]),
        ("listen [2001:db8::11]:443 ssl;", [*ALL, "[2001:db8::11]:443 ssl"]),
        ("listen [::]:443 ssl ipv6only=off;", ["[::]:443 ssl"]),
        ("listen 203.0.113.99:443 quic;", ALL),
        ("listen 203.0.113.99:444 ssl;", ALL),
    ],
)
def test_ours_are_where_the_public_comes_in_and_where_others_are(theirs: str, ours: list[str]) -> None:
    assert listens(f"{theirs or 'listen 8080;'} server_name a.org;") == ours


def test_an_address_that_is_not_the_hosts_is_reached_through_a_router() -> None:
    assert listens("listen 10.0.0.5:443 ssl;", addresses=("10.0.0.5",)) == ["443 ssl", "10.0.0.5:443 ssl"]
    assert listens(f"listen {FOUR}:443 ssl;", addresses=("10.0.0.5",)) == ["443 ssl", f"{FOUR}:443 ssl"]


def test_http3_of_a_neighbour_is_a_port_of_its_own() -> None:
    assert neighbours.open_ports(there("listen 443 quic; listen 443 ssl;")) == {("udp", 443), ("tcp", 443)}


KEPT = "443 ssl default_server so_keepalive=60s:15s:4"
OLD = f"server {{\n    listen {KEPT};\n    listen [::]:443 ssl default_server;\n}}\n"
HTTPS = "/etc/nginx/conf.d/zz-derpfleet-https.conf"
THEIRS = "/etc/nginx/sites-enabled/blog"


def broken(error: str, grep: str = "", content: str = OLD) -> Facts:
    facts = nginx_facts(Output(status=1, stdout="", stderr=f"nginx: [emerg] {error}\nnginx: test failed\n"))
    http = {neighbours.FOLDERS[1] + "/" + neighbours.HTTP_NAME: a_file("server {\n    listen 80;\n}\n")}
    said = {**facts.commands, "nginx_listens": Output(status=0, stdout=grep, stderr="")}
    return replace(facts, files={**facts.files, **http, HTTPS: a_file(content)}, commands=said)


GREP = (
    f"{THEIRS}:2:    listen [::]:443 ssl ipv6only=on; # managed by Certbot\n"
    f"{THEIRS}:3:    listen 443 ssl; # managed by Certbot\n"
    f"{HTTPS}:2:    listen 443 ssl default_server so_keepalive=60s:15s:4;\n"
    f"{HTTPS}:3:    listen [::]:443 ssl default_server;\n"
)


@pytest.mark.parametrize(
    ("error", "first"),
    [
        (f"duplicate listen options for [::]:443 in {HTTPS}:3", f"{THEIRS}:2 (listen [::]:443 ssl ipv6only"),
        (f"duplicate listen options for [::]:443 in {THEIRS}:2", f"{HTTPS}:3 (listen [::]:443 ssl default_"),
        (f"a duplicate default server for 0.0.0.0:443 in {THEIRS}:3", f"{HTTPS}:2 (listen {KEPT})"),
    ],
)
def test_a_clash_with_servers_of_before_is_healed_and_named_with_both_files(error: str, first: str) -> None:
    facts = broken(error, GREP)
    relay = host()
    site = Site(path="", hosts={"hk1": relay}, known_hosts="none")
    assert roles.refusals(relay, site, facts) == []
    (sentence,) = [words for words in roles.warnings(relay, site, facts) if "nginx" in words]
    assert error in sentence and f"; the first is {first}" in sentence
    served = places.listens(relay, facts, 443, neighbours.HTTPS_NAME, tls=True)
    assert served == ALL
    moved = [resource.id for resource in nginx.http_resources(relay, facts, ISSUED)]
    assert "command:https server taken out" in moved


def test_a_clash_of_two_neighbours_is_theirs_and_both_are_named() -> None:
    places_of = (f"{THEIRS}:2", "/etc/nginx/conf.d/b.conf:9")
    grep = "".join(f"{place}:  listen 8080 default_server;\n" for place in places_of)
    facts = broken("a duplicate default server for 0.0.0.0:8080 in /etc/nginx/conf.d/b.conf:9", grep)
    assert not clashes.is_by_us(facts)
    (sentence,) = nginx.refusals(host(), facts)
    assert f"/etc/nginx/conf.d/b.conf:9; the first is {THEIRS}:2 (listen 8080 default_server)" in sentence


def test_what_came_by_address_stays_ours_beside_a_site_that_came_later() -> None:
    facts = there("listen 80; server_name _; root /srv;")
    content = f"server {{\n    listen 80;\n    server_name hk1.example.org {FOUR};\n}}\n"
    deployed = {neighbours.FOLDERS[1] + "/" + neighbours.HTTP_NAME: a_file(content)}
    later = replace(facts, files={**facts.files, **deployed})
    assert neighbours.by_address(host(), facts) == ((), "")
    assert neighbours.by_address(host(), later) == ((FOUR,), "")
    claims = there("listen 80 default_server; server_name _; root /srv;")
    claimed = replace(claims, files={**claims.files, **deployed})
    assert neighbours.by_address(host(), claimed) == ((), "")


def test_our_files_have_nothing_that_a_neighbours_later_line_is_refused_for() -> None:
    for facts in (there(), there("listen 80; listen 443 ssl; server_name a.org;")):
        https = nginx.https_resources(host(), facts, ISSUED, "")
        both = [*nginx.http_resources(host(), facts, ISSUED), *https]
        ours = [r.content.decode() for r in both if isinstance(r, File) and isinstance(r.content, bytes)]
        text = "".join(content for content in ours if "server {" in content)
        assert "default_server" not in text and "so_keepalive" not in text and "\nmap " not in text


def test_the_sockets_that_a_reload_has_to_open_are_all_of_nginxs() -> None:
    facts = there(f"listen {FOUR}:443 ssl; listen 8443 quic; listen 127.0.0.1:81; listen unix:/run/x;")
    resources = nginx.https_resources(host(), replace(facts, addresses=(FOUR,)), ISSUED, "")
    (listens,) = [resource.listens for resource in resources if isinstance(resource, Service)]
    assert listens == ("127.0.0.1:443", f"{FOUR}:443", "127.0.0.1:81")
    both = there("listen [::]:443 ssl ipv6only=off;")
    found = places.sockets(host(), both, 443, neighbours.HTTPS_NAME)
    assert found == ("0.0.0.0:443", "[::]:443")
