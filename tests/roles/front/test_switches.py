"""From every front to every other one: nothing of the former one is left."""

from __future__ import annotations

from itertools import permutations
from pathlib import PurePosixPath
from typing import Any

import pytest

import roles
from engine.plan import compile_plan
from engine.resource import Absent, File, Resource, Service
from inventory.model import Host, Site
from roles.front.nginx import neighbours
from roles.paths import FRONT, SYSTEMD
from tests.roles.cases import facts_of, shipment
from tests.roles.front.test_neighbours import host
from tests.roles.test_absent import deployed

FRONTS: dict[str, dict[str, Any]] = {
    "nginx": {"front": "nginx"},
    "nginx-stream": {"front": "nginx-stream"},
    "direct": {"front": "direct"},
    "haproxy": {"front": "external", "external": {"kind": "haproxy"}},
    "caddy": {
        "front": "external",
        "external": {"kind": "caddy", "tls": "terminated"},
        "certificate": {"source": "front"},
    },
}


def made(name: str) -> tuple[Host, Site]:
    acme = {"certificate": {"source": "letsencrypt", "agree_terms": True}}
    relay = host(**acme | FRONTS[name])
    return relay, Site(path="", hosts={"hk1": relay}, known_hosts="none")


def of_a_front(resource: Resource) -> bool:
    path = resource.owned_path() or ""
    ours = ("zz-derpfleet-", f"{SYSTEMD}/derpfleet-nginx", FRONT)
    return isinstance(resource, File) and any(part in path for part in ours)


@pytest.mark.parametrize(("before", "after"), [*permutations(FRONTS, 2)])
def test_nothing_of_the_former_front_is_left(before: str, after: str) -> None:
    relay, site = made(before)
    first = roles.compile_host(relay, site, facts_of("bare"), shipment(relay))
    facts = deployed(facts_of("bare"), first)
    relay, site = made(after)
    second = roles.compile_host(relay, site, facts, shipment(relay))
    compile_plan(second, mode="check")  # no contradiction, no circle

    kept = {r.path for r in second if isinstance(r, File)}
    gone = [PurePosixPath(r.path) for r in second if isinstance(r, Absent)]
    left = [
        r.path
        for r in first
        if isinstance(r, File) and of_a_front(r) and r.path not in kept
        and not any(PurePosixPath(r.path).is_relative_to(path) for path in gone)
    ]
    assert left == []
    nginx = [r for r in second if isinstance(r, Service) and r.unit == "nginx.service"]
    is_nginx = {before: before.startswith("nginx"), after: after.startswith("nginx")}
    assert [r.running for r in nginx] == ([True, True] if is_nginx[after] else [False] * is_nginx[before])


def test_one_reload_takes_the_stream_and_leaves_the_server_of_before() -> None:
    """Else one of them would want port 443 of the other, or nobody would have it."""
    relay, site = made("nginx")
    facts = deployed(facts_of("bare"), roles.compile_host(relay, site, facts_of("bare"), shipment(relay)))
    relay, site = made("nginx-stream")
    found = roles.compile_host(relay, site, facts, shipment(relay))
    (service,) = (r for r in found if isinstance(r, Service) and r.phase == "http")
    https = f"{neighbours.folder(facts)}/{neighbours.HTTPS_NAME}"
    assert {f"file:{neighbours.stream_file(facts)}", f"absent:{https}"} <= set(service.reload_on)


def test_none_is_another_word_for_direct() -> None:
    relay, site = made("direct")
    none = relay.model_copy(update={"front": "none"})
    plans = [roles.compile_host(each, site, facts_of("bare"), shipment(each)) for each in (relay, none)]
    assert plans[0] == plans[1]
