"""Which of an nginx's servers are watched, and how they are asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import roles
from engine.facts import Facts, FileFact, Listener, Output
from engine.resource import File
from engine.ship import Shipment
from inventory.model import Host, Site
from roles import nginx, sites

OURS = "/etc/nginx/conf.d/zz-derpfleet-http.conf"


def there(*servers: str, files: tuple[str, ...] = ()) -> Facts:
    """A host whose nginx has these servers, every one in a file of its own."""
    paths = files or tuple(f"/etc/nginx/conf.d/{number}.conf" for number in range(len(servers)))
    parts = ["# configuration file /etc/nginx/nginx.conf:\nhttp { include /etc/nginx/conf.d/*.conf; }\n"]
    parts += [f"# configuration file {path}:\nserver {{ {text} }}\n" for path, text in zip(paths, servers, strict=True)]
    return Facts(tools={"nginx": "/usr/sbin/nginx"}, commands={"nginx": Output(status=0, stdout="".join(parts), stderr="")})


def watched(*servers: str, files: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """(url, connect) of each watch."""
    return [(watch.url, watch.connect) for watch in sites.watches(there(*servers, files=files))]


def host(**settings: Any) -> Host:
    known = {"name": "hk1", "domain": "hk1.example.org", "region": {"id": 901, "code": "hk", "name": "HK"}, "ipv4": "203.0.113.10"}
    return Host(**known | settings)


@pytest.mark.parametrize("name", ["", "server_name _;", 'server_name "";', r"server_name ~^(www\.)?(?<n>.+)$;", "server_name $hostname;"])
def test_a_server_without_a_name_to_ask_for_is_watched_by_the_address_that_it_is_the_default_of(name: str) -> None:
    assert watched(f"listen 8080; {name}") == [("http://127.0.0.1:8080/", "127.0.0.1:8080")]
    assert watched(f"listen 192.0.2.7:443 ssl; {name}") == [("https://192.0.2.7:443/", "192.0.2.7:443")]
    assert watched(f"listen [::]:8080; {name}") == [("http://[::1]:8080/", "[::1]:8080")]
    named = ("http://a.org:80/", "127.0.0.1:80")
    assert watched("listen 80; server_name a.org;", f"listen 80; {name}") == [named]
    assert watched("listen 80; server_name a.org;", f"listen 80 default_server; {name}") == [
        ("http://127.0.0.1:80/", "127.0.0.1:80"),
        named,
    ]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("localhost", "localhost"),
        ("intranet", "intranet"),
        ("a.org", "a.org"),
        ("*.a.org", "derpfleet.a.org"),
        (".a.org", "a.org"),
        ("mail.*", "mail.example"),
    ],
)
def test_every_name_is_asked_for_by_one_that_nginx_gives_to_its_server(name: str, asked: str) -> None:
    assert watched("listen 80; server_name first.org;", f"listen 80; server_name {name};")[-1 if asked > "first" else 0] == (
        f"http://{asked}:80/",
        "127.0.0.1:80",
    )


def test_what_answers_by_address_only_because_of_us_is_not_watched() -> None:
    servers = ("listen 80; server_name _;", "listen 80 default_server; server_name hk1.example.org;")
    assert watched(*servers, files=("/etc/nginx/conf.d/a.conf", OURS)) == []


def test_streams_and_sockets_are_not_asked() -> None:
    assert watched("listen unix:/run/a.sock; server_name a.org;") == []


@pytest.mark.parametrize(
    ("default", "instead"),
    [
        ("server_name blog.example.org; root /var/www;", "302 http://blog.example.org$request_uri"),
        ("server_name _ .blog.example.org; root /var/www;", ""),
        ("server_name _; return 444;", "444"),
        ("server_name blog.example.org; return 301 https://$host$request_uri;", "301 https://$host$request_uri"),
        ("server_name blog.example.org; return 301 https://$server_name$request_uri;", "302 http://blog.example.org$request_uri"),
        ("server_name blog.example.org; return 200 'a word; and { more';", "302 http://blog.example.org$request_uri"),
    ],
)
def test_who_asks_by_address_finds_the_relays_check_and_for_all_else_whom_they_found_before(default: str, instead: str) -> None:
    addresses = ("203.0.113.10", "[2001:db8::10]") if instead else ()
    assert sites.by_address(host(ipv6="2001:db8::10"), there(f"listen 80; {default}")) == (addresses, instead)


def test_the_redirect_to_a_neighbours_name_keeps_the_port() -> None:
    facts = there("listen 8080; server_name blog.example.org;")
    assert sites.by_address(host(ports={"http": 8080}), facts)[1] == "302 http://blog.example.org:8080$request_uri"


@pytest.mark.parametrize("default", ["server_name _; root /var/www;", "server_name localhost;", "", "server_name 203.0.113.10;"])
def test_a_site_that_is_reached_by_address_only_keeps_it(default: str) -> None:
    assert sites.by_address(host(), there(f"listen 80; {default}")) == ((), "")


def test_where_we_are_the_default_all_that_comes_by_address_is_as_by_name() -> None:
    servers = ("listen 80; server_name blog.example.org;", "listen 80 default_server; server_name hk1.example.org;")
    assert sites.by_address(host(), there(*servers, files=("/etc/nginx/conf.d/a.conf", OURS))) == (("203.0.113.10",), "")
    assert sites.by_address(host(), Facts()) == (("203.0.113.10",), "")
    assert sites.by_address(host(ipv4=None), Facts()) == ((), "")
    assert sites.by_address(host(domain="203.0.113.10"), Facts()) == ((), "")


@pytest.mark.parametrize(("servers", "names"), [(("listen 80; server_name blog.example.org;",), 2), (("listen 80;",), 1)])
def test_while_a_lost_certificate_breaks_nginx_what_we_answer_by_address_stays(servers: tuple[str, ...], names: int) -> None:
    resources = nginx.resources(host(), Site(path="", hosts={"hk1": host()}, known_hosts="none"), there(*servers), Shipment())
    content = next(r.content for r in resources if isinstance(r, File) and r.path == OURS)
    assert isinstance(content, bytes)
    fact = FileFact(content=content.decode(), sha256="", mode="0644", owner="root", group="root")
    emerg = Output(status=1, stdout="", stderr="nginx: [emerg] cannot load certificate")
    broken = Facts(tools={"nginx": "/usr/sbin/nginx"}, files={OURS: fact}, commands={"nginx": emerg})
    kept, instead = sites.by_address(host(), broken)
    assert (kept, instead) == sites.by_address(host(), there(*servers))
    assert len(kept) == names - 1


LUA = "listen 80; location / { content_by_lua_block { ngx.say([[ } ) }"


def told(facts: Facts, **settings: Any) -> list[str]:
    return roles.refusals(host(**settings), Site(path="", hosts={"hk1": host(**settings)}, known_hosts="none"), facts)


def test_a_configuration_that_we_cannot_read_is_told_with_its_place() -> None:
    (sentence,) = told(there(LUA))
    assert "what derpfleet cannot read, so nobody can tell whom else it serves: /etc/nginx/conf.d/0.conf:1: " in sentence


def test_where_nginx_is_left_alone_nobody_has_to_read_it() -> None:
    mine = Listener(proto="tcp", address="0.0.0.0", port=443, pid=8, program="nginx", unit="nginx.service")
    facts = replace(there(LUA), listening=(mine,))
    alone = {"front": "none", "certificate": {"source": "self-signed"}, "firewall": {"mode": "off"}}
    assert told(facts, **alone, ports={"https": 3489}) == []
    assert sites.watches(facts) == ()
    (sentence,) = told(facts, **alone)
    assert "port 443/tcp of hk1, where relay is to serve https, is taken by nginx" in sentence


@pytest.mark.parametrize(
    "facts", [there(LUA), replace(there(), commands={"nginx": Output(status=1, stdout="", stderr="nginx: [emerg] x")})]
)
def test_nginx_is_not_left_while_nobody_can_tell_whom_else_it_serves(facts: Facts) -> None:
    fact = FileFact(content="", sha256="", mode="0644", owner="root", group="root")
    (sentence,) = told(replace(facts, files={OURS: fact}), front="none", certificate={"source": "self-signed"})
    assert sentence.startswith("nginx's configuration on hk1 ")
