"""nginx-stream: what nginx hands on by name, and beside which configurations it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.facts import Facts, Output
from engine.resource import File
from roles.contract import Issued
from roles.front.nginx import neighbours, stream
from tests.roles.front.test_neighbours import host, nginx_facts
from tests.support.facts import DEBIAN_12

RELAY = host(front="nginx-stream")
INCLUDED = "include /etc/nginx/modules-enabled/*.conf;"
BEHIND = "listen 127.0.0.1:444 ssl proxy_protocol; server_name shop.example.org;"


def serving(*servers: str, main: str = INCLUDED) -> Facts:
    """Return a host whose nginx has this in its main context, and these servers in one file."""
    text = f"# configuration file /etc/nginx/nginx.conf:\n{main}\n"
    text += "http { include /etc/nginx/conf.d/*.conf; }\n# configuration file /etc/nginx/conf.d/a.conf:\n"
    text += "\n".join(f"server {{ {server} }}" for server in servers)
    return nginx_facts(Output(status=0, stdout=text, stderr=""))


def written(facts: Facts, relay: object = RELAY) -> str:
    resources = stream.http_resources(relay, facts, Issued("", "", ()))  # type: ignore[arg-type]  # any facts
    (file,) = (r for r in resources if isinstance(r, File) and r.path.endswith(neighbours.STREAM_NAME))
    assert isinstance(file.content, bytes)
    return file.content.decode()


@pytest.mark.parametrize(
    ("servers", "default"),
    [((), "127.0.0.1:81"), ((BEHIND,), "127.0.0.1:444"), ((BEHIND, BEHIND), "127.0.0.1:444")],
)
def test_other_names_go_to_the_site_that_expects_them(servers: tuple[str, ...], default: str) -> None:
    facts = serving(*servers)
    assert stream.refusals(RELAY, facts) == []
    assert f"default {default};" in written(facts)
    assert '""' not in written(facts)


def test_clients_of_an_address_say_no_name() -> None:
    relay = host(front="nginx-stream", domain="203.0.113.10", certificate={"source": "self-signed"})
    assert '"" 127.0.0.1:81;' in written(serving(BEHIND), relay)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (serving("listen 443 ssl; server_name shop.example.org;"), "(/etc/nginx/conf.d/a.conf:1)"),
        (serving("listen 203.0.113.10:443 ssl;"), "instead listen 127.0.0.1:444 ssl proxy_protocol;"),
        (serving(main=f"{INCLUDED} stream {{ }}"), "has a stream block already (/etc/nginx/nginx.conf:1)"),
        (serving(main=f"{INCLUDED} stream {{ }}"), "front to external with external.kind nginx-stream"),
        (serving(main=""), "does not include /etc/nginx/modules-enabled/*.conf"),
        (
            serving(BEHIND, "listen 127.0.0.1:445 ssl proxy_protocol;"),
            "at 127.0.0.1:444 and 127.0.0.1:445: our stream hands every other name on to one place",
        ),
    ],
)
def test_a_configuration_that_cannot_have_our_stream_is_refused(facts: Facts, words: str) -> None:
    (sentence,) = stream.refusals(RELAY, facts)
    assert words in sentence


def test_nginx_may_include_its_modules_by_a_relative_path() -> None:
    assert stream.refusals(RELAY, serving(main="include modules-enabled/*.conf;")) == []


def test_a_moved_site_is_watched_with_a_proxy_header() -> None:
    (watch,) = neighbours.watches(serving(BEHIND))
    assert (watch.url, watch.proxy_header) == ("https://shop.example.org:444/", True)


def test_our_own_stream_is_no_neighbour() -> None:
    listens = "stream { server { listen 443; } }"
    text = f"# configuration file /etc/nginx/nginx.conf:\n{INCLUDED}\n"
    text += "http { include /etc/nginx/conf.d/*.conf; }\n"
    text += f"# configuration file {neighbours.stream_file(DEBIAN_12)}:\n{listens}\n"
    facts = replace(serving(), commands={"nginx": Output(status=0, stdout=text, stderr="")})
    assert neighbours.others(facts) == ()
    assert stream.refusals(RELAY, facts) == []
