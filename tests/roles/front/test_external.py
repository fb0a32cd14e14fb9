"""external: the fragment is printed once and kept, and the operator's front is not touched."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from engine.facts import Listener
from engine.resource import Absent, File
from fleet.shared.parts import deploy_part
from inventory.choices import EXTERNALS, ExternalName
from probe.target import Part
from roles import paths
from roles.contract import Issued
from roles.front import external
from roles.wiring import wire
from tests.roles.front.test_neighbours import a_file, host
from tests.support.facts import DEBIAN_12

EVERY = [(kind, tls) for kind, row in EXTERNALS.items() for tls in row.tls]


def a_host(kind: str = "haproxy", tls: str = "passthrough", **more: object):
    source = {"passthrough": "self-signed", "terminated": "front"}[tls]
    made = {"front": "external", "external": {"kind": kind, "tls": tls}, "certificate": {"source": source}}
    return host(**made | more)


def text_of(kind: str, tls: str, **more: object) -> str:
    content = external.fragment(a_host(kind, tls, **more)).content
    assert isinstance(content, bytes)
    return content.decode()


def test_every_kind_has_a_row() -> None:
    assert set(EXTERNALS) == set(get_args(ExternalName))


@pytest.mark.parametrize(("kind", "tls"), EVERY)
@pytest.mark.parametrize("port", [443, 1234, 12345, 3489])
def test_a_fragment_has_the_name_and_the_ports(kind: str, tls: str, port: int) -> None:
    text = text_of(kind, tls, ports={"https": port, "backend": 8181})
    assert "hk1.example.org" in text
    assert str(port) in text
    assert "127.0.0.1:8181" in text
    assert "/generate_204" in text
    assert text.startswith("# ")
    assert "Written by derpfleet" in text.splitlines()[0]


@pytest.mark.parametrize("kind", [kind for kind, tls in EVERY if tls == "passthrough"])
def test_challenges_are_handed_on_where_the_relay_has_an_acme_certificate(kind: str) -> None:
    acme = {"source": "letsencrypt", "agree_terms": True}
    assert "127.0.0.1:8402" in text_of(kind, "passthrough", certificate=acme)
    assert "8402" not in text_of(kind, "passthrough")


def test_the_fragment_is_printed_while_the_host_has_another_or_none() -> None:
    relay = a_host()
    file = external.fragment(relay)
    assert isinstance(file.content, bytes)
    kept = replace(DEBIAN_12, files={file.path: a_file(file.content.decode())})
    former = replace(DEBIAN_12, files={file.path: a_file("before")})
    assert external.warnings(relay, kept) == []
    for facts in (DEBIAN_12, former):
        (words,) = external.warnings(relay, facts)
        assert words.endswith(file.content.decode())
        assert file.path in words


def test_the_fragment_of_another_kind_goes() -> None:
    before = replace(DEBIAN_12, files={f"{paths.FRONT}/caddy.conf": a_file("x")})
    found = external.http_resources(a_host(), before, Issued("", "", ()))
    assert [r.path for r in found if isinstance(r, Absent)] == [f"{paths.FRONT}/caddy.conf"]
    assert [r.path for r in found if isinstance(r, File)] == [f"{paths.FRONT}/haproxy.conf"]


def test_the_fronts_ports_may_be_taken_and_the_relays_may_not() -> None:
    uses = {use.key: use for use in wire(a_host()).uses}
    theirs = Listener(proto="tcp", address="0.0.0.0", port=443, pid=1, program="x", unit="")
    shared = {key for key, use in uses.items() if external.shares(theirs, use, DEBIAN_12)}
    assert shared == {"ports.https", "ports.http"}


@pytest.mark.parametrize("part", [Part.FRONT, Part.CERTIFICATE])
def test_a_broken_rung_says_where_the_fragment_goes(part: Part) -> None:
    words = deploy_part(a_host(), part)
    assert "put the fragment /etc/derpfleet/front/haproxy.conf of hk1 into" in words
    assert "invoke verify --host hk1" in words
    assert deploy_part(a_host(), Part.RELAY) == "invoke deploy --host hk1 --only role:relay"


def test_proxies_before_the_front_are_believed_as_well() -> None:
    kind = {"kind": "caddy", "tls": "terminated", "trusted": ["192.0.2.0/24"]}
    relay = a_host("caddy", "terminated", external=kind)
    assert wire(relay).proxies == ("127.0.0.1", "192.0.2.0/24")
    assert not wire(relay).relay_reads_proxy_header
    assert wire(a_host()).relay_reads_proxy_header
