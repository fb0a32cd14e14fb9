"""Which of an nginx's servers are watched, and how they are asked."""

from __future__ import annotations

import pytest

from engine.facts import Facts, Output
from roles import sites


def watched(*servers: str, files: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """(url, connect) of each watch; every server in a file of its own."""
    paths = files or tuple(f"/etc/nginx/conf.d/{number}.conf" for number in range(len(servers)))
    parts = ["# configuration file /etc/nginx/nginx.conf:\nhttp { include /etc/nginx/conf.d/*.conf; }\n"]
    parts += [f"# configuration file {path}:\nserver {{ {text} }}\n" for path, text in zip(paths, servers, strict=True)]
    facts = Facts(tools={"nginx": "/usr/sbin/nginx"}, commands={"nginx": Output(status=0, stdout="".join(parts), stderr="")})
    return [(watch.url, watch.connect) for watch in sites.watches(facts)]


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
    ours = "/etc/nginx/conf.d/zz-derpfleet-http.conf"
    there = ("listen 80; server_name _;", "listen 80 default_server; server_name hk1.example.org;")
    assert watched(*there, files=("/etc/nginx/conf.d/a.conf", ours)) == []


def test_streams_and_sockets_are_not_asked() -> None:
    assert watched("listen unix:/run/a.sock; server_name a.org;") == []
