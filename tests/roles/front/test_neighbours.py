"""Which of an nginx's servers are watched, and how they are asked."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

import roles
from engine.facts import Facts, FileFact, Listener, Output
from engine.plan import compile_plan
from engine.resource import File, Service
from inventory.model import Host, Site
from roles.contract import Issued
from roles.front import nginx
from roles.front.nginx import neighbours
from roles.wiring import wire
from tests.roles.cases import shipment
from tests.support.facts import DEBIAN_12

ISSUED = Issued("/c.pem", "/k.pem", ())
OURS = "/etc/nginx/conf.d/zz-derpfleet-http.conf"


def there(*servers: str, files: tuple[str, ...] = ()) -> Facts:
    """Return a host whose nginx has these servers, each in its own file."""
    paths = files or tuple(f"/etc/nginx/conf.d/{number}.conf" for number in range(len(servers)))
    parts = ["# configuration file /etc/nginx/nginx.conf:\nhttp { include /etc/nginx/conf.d/*.conf; }\n"]
    parts += [
        f"# configuration file {path}:\nserver {{ {text} }}\n"
        for path, text in zip(paths, servers, strict=True)
    ]
    return nginx_facts(Output(status=0, stdout="".join(parts), stderr=""))


def nginx_facts(said: Output) -> Facts:
    """Return a host that has the distribution's nginx, with this answer of `nginx -T`."""
    files = {"/var/lib/dpkg/info/nginx-core.list": a_file("/.\n/usr/sbin/nginx\n")}
    return replace(DEBIAN_12, tools={"nginx": "/usr/sbin/nginx"}, files=files, commands={"nginx": said})


def a_file(content: str) -> FileFact:
    return FileFact(content=content, sha256="", mode="0644", owner="root", group="root")


def watched(*servers: str, files: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Return (url, connect) of each watch."""
    return [(watch.url, watch.connect) for watch in neighbours.watches(there(*servers, files=files))]


def host(**settings: Any) -> Host:
    known = {
        "name": "hk1",
        "domain": "hk1.example.org",
        "region": {"id": 901, "code": "hk", "name": "HK"},
        "ipv4": "203.0.113.10",
    }
    return Host(**known | settings)


@pytest.mark.parametrize(
    "name",
    ["", "server_name _;", 'server_name "";', r"server_name ~^(www\.)?(?<n>.+)$;", "server_name $hostname;"],
)
def test_a_server_without_a_name_to_ask_for_is_watched_by_the_address_that_it_is_the_default_of(
    name: str,
) -> None:
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
    assert watched("listen 80; server_name first.org;", f"listen 80; server_name {name};")[
        -1 if asked > "first" else 0
    ] == (
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
        (
            "server_name blog.example.org; return 301 https://$host$request_uri;",
            "301 https://$host$request_uri",
        ),
        (
            "server_name blog.example.org; return 301 https://$server_name$request_uri;",
            "302 http://blog.example.org$request_uri",
        ),
        (
            "server_name blog.example.org; return 200 'a word; and { more';",
            "302 http://blog.example.org$request_uri",
        ),
    ],
)
def test_who_asks_by_address_finds_the_relays_check_and_for_all_else_whom_they_found_before(
    default: str, instead: str
) -> None:
    addresses = ("203.0.113.10", "[2001:db8::10]") if instead else ()
    assert neighbours.by_address(host(ipv6="2001:db8::10"), there(f"listen 80; {default}")) == (
        addresses,
        instead,
    )


def test_the_redirect_to_a_neighbours_name_keeps_the_port() -> None:
    facts = there("listen 8080; server_name blog.example.org;")
    assert (
        neighbours.by_address(host(ports={"http": 8080}), facts)[1]
        == "302 http://blog.example.org:8080$request_uri"
    )


@pytest.mark.parametrize(
    "default", ["server_name _; root /var/www;", "server_name localhost;", "", "server_name 203.0.113.10;"]
)
def test_a_site_that_is_reached_by_address_only_keeps_it(default: str) -> None:
    assert neighbours.by_address(host(), there(f"listen 80; {default}")) == ((), "")


def test_where_we_are_the_default_all_that_comes_by_address_is_as_by_name() -> None:
    servers = (
        "listen 80; server_name blog.example.org;",
        "listen 80 default_server; server_name hk1.example.org;",
    )
    assert neighbours.by_address(host(), there(*servers, files=("/etc/nginx/conf.d/a.conf", OURS))) == (
        ("203.0.113.10",),
        "",
    )
    assert neighbours.by_address(host(), DEBIAN_12) == (("203.0.113.10",), "")
    assert neighbours.by_address(host(ipv4=None), DEBIAN_12) == ((), "")
    assert neighbours.by_address(host(domain="203.0.113.10"), DEBIAN_12) == ((), "")


@pytest.mark.parametrize(
    ("servers", "names"), [(("listen 80; server_name blog.example.org;",), 2), (("listen 80;",), 1)]
)
def test_while_a_lost_certificate_breaks_nginx_what_we_answer_by_address_stays(
    servers: tuple[str, ...], names: int
) -> None:
    resources = nginx.http_resources(host(), there(*servers), ISSUED)
    content = next(r.content for r in resources if isinstance(r, File) and r.path == OURS)
    assert isinstance(content, bytes)
    broken = nginx_facts(Output(status=1, stdout="", stderr="nginx: [emerg] cannot load certificate"))
    broken = replace(broken, files={**broken.files, OURS: a_file(content.decode())})
    kept, instead = neighbours.by_address(host(), broken)
    assert (kept, instead) == neighbours.by_address(host(), there(*servers))
    assert len(kept) == names - 1


LUA = "listen 80; location / { content_by_lua_block { ngx.say([[ } ) }"


def refused(facts: Facts, **settings: Any) -> list[str]:
    return roles.refusals(
        host(**settings), Site(path="", hosts={"hk1": host(**settings)}, known_hosts="none"), facts
    )


def test_a_configuration_that_we_cannot_read_is_refused_with_its_place() -> None:
    (sentence,) = refused(there(LUA))
    assert "it cannot know which other sites nginx serves: /etc/nginx/conf.d/0.conf:1: " in sentence


def test_where_nginx_is_left_alone_its_configuration_need_not_be_readable() -> None:
    mine = Listener(proto="tcp", address="0.0.0.0", port=443, pid=8, program="nginx", unit="nginx.service")
    facts = replace(there(LUA), listening=(mine,))
    alone = {"front": "none", "certificate": {"source": "self-signed"}, "firewall": {"mode": "off"}}
    assert refused(facts, **alone, ports={"https": 3489}) == []
    assert neighbours.watches(facts) == ()
    (sentence,) = refused(facts, **alone)
    assert "port 443/tcp of hk1, where https is to be served, is taken by nginx" in sentence


@pytest.mark.parametrize(
    "facts", [there(LUA), nginx_facts(Output(status=1, stdout="", stderr="nginx: [emerg] x"))]
)
def test_nginx_is_not_left_while_its_other_sites_are_unknown(facts: Facts) -> None:
    facts = replace(facts, files={**facts.files, OURS: a_file("")})
    (sentence,) = refused(facts, front="none", certificate={"source": "self-signed"})
    assert sentence.startswith("nginx's configuration on hk1 ")


ALONE = {"front": "none", "ports": {"https": 3489, "http": 8080}, "certificate": {"source": "self-signed"}}


def test_an_nginx_with_its_welcome_page_alone_leaves_a_port_that_we_need() -> None:
    """The package has it on port 80, also after a deploy that failed before our own."""
    welcome, blog = "listen 80 default_server; server_name _;", "listen 8080; server_name blog.example.org;"
    page = neighbours.STOCK_LINK
    mine = Listener(proto="tcp", address="0.0.0.0", port=80, pid=8, program="nginx", unit="nginx.service")
    md5 = hashlib.md5(b"page", usedforsecurity=False).hexdigest()
    packaged = Output(status=0, stdout=f" {neighbours.STOCK_SITE} {md5}\n", stderr="")

    def with_page(facts: Facts) -> Facts:
        commands, files = facts.commands, facts.files
        return replace(
            facts,
            listening=(mine,),
            files={**files, page: a_file("page")},
            commands={**commands, "nginx_conffiles": packaged},
        )

    alone = with_page(there(welcome, files=(page,)))
    ordered: dict[str, Any] = {
        "front": "direct", "certificate": {"source": "letsencrypt", "agree_terms": True}
    }
    assert refused(alone, **ordered) == []
    [stopped] = nginx.replaced(wire(host(**ordered)), alone)
    assert isinstance(stopped, Service)
    assert (stopped.unit, stopped.enabled, stopped.running) == ("nginx.service", False, False)
    relay = host(**ordered)
    site = Site(path="", hosts={"hk1": relay}, known_hosts="none")
    plan = compile_plan(roles.compile_host(relay, site, alone, shipment(relay)), mode="check")
    ids = [resource.id for resource in plan.resources]
    assert ids.index(stopped.id) < ids.index("command:certificate")

    assert nginx.replaced(wire(host(**ALONE)), alone) == []
    assert nginx.replaced(wire(host()), alone) == []
    beside = with_page(there(welcome, blog, files=(page, "/etc/nginx/conf.d/blog.conf")))
    assert nginx.replaced(wire(host(**ordered)), beside) == []
    assert "port 80/tcp of hk1" in refused(beside, **ordered)[0]


@pytest.mark.parametrize("path", ["/usr/bin/nginx", "/usr/local/sbin/nginx"])
def test_an_nginx_that_is_no_packages_is_not_installed_over(path: str) -> None:
    facts = replace(there("listen 80; server_name a.org;"), tools={"nginx": path})
    (sentence,) = refused(facts)
    assert sentence.startswith(
        f"{path} on hk1 is no package's, and the distribution's nginx would be installed over it: "
    )
    assert refused(replace(there(), files={}))
    assert refused(facts, **ALONE) == []


def test_an_nginx_that_includes_neither_folder_is_refused_with_the_line_to_add() -> None:
    main = "# configuration file /etc/nginx/nginx.conf:\n"
    (sentence,) = refused(
        nginx_facts(Output(status=0, stdout=f"{main}http {{ include /srv/sites/*.conf; }}\n", stderr=""))
    )
    assert "add to its http block the line include /etc/nginx/conf.d/*.conf; or set" in sentence
    http = "# configuration file /etc/nginx/http.conf:\ninclude sites-enabled/*;\n"
    by_the_way = f"{main}http {{ include http.conf; }}\n{http}"
    assert refused(nginx_facts(Output(status=0, stdout=by_the_way, stderr=""))) == []


def test_an_nginx_out_of_sight_has_its_ports_for_itself() -> None:
    panels = Listener(proto="tcp", address="0.0.0.0", port=443, pid=8, program="nginx", unit="nginx.service")
    (sentence,) = refused(replace(DEBIAN_12, listening=(panels,)))
    assert "port 443/tcp of hk1, where https is to be served, is taken by nginx" in sentence


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("/etc/nginx//conf.d/*.conf", "/etc/nginx/conf.d"),
        ("conf.d/./*.con?", "/etc/nginx/conf.d"),
        ("/etc/nginx/*/*.conf", "/etc/nginx/sites-enabled"),
        ("/etc/nginx/sites-enabled/*.*", "/etc/nginx/sites-enabled"),
        ("/etc/nginx/sites-enabled/*.vhost", ""),
        ("/etc/nginx/x/*.conf", ""),
    ],
)
def test_every_include_that_takes_our_files_counts(pattern: str, folder: str) -> None:
    main = f"# configuration file /etc/nginx/nginx.conf:\nhttp {{ include {pattern}; }}\n"
    facts = nginx_facts(Output(status=0, stdout=main, stderr=""))
    assert (neighbours.included(facts) or [""])[-1] == folder
    refused = any("includes neither" in sentence for sentence in nginx.refusals(host(), facts))
    assert refused == (not folder)
