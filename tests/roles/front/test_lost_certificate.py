"""Our https server lost its certificate, and breaks nginx's configuration.

While nginx runs it still serves what it has in memory, until it is reloaded without that server.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

import roles
from engine.facts import Facts, Listener, Output
from engine.plan import compile_plan
from inventory.model import Host, Site
from tests.roles.cases import load, shipment

ASIDE, BACK = "command:https server taken out", "command:https server put back"
ORDER, HTTP, HTTPS = "command:certificate", "service:nginx.service/http", "service:nginx.service"
READY = "file:/var/www/derpfleet/.well-known/acme-challenge/derpfleet"
CLASH = "nginx: [emerg] duplicate listen options for [::]:443 in {}/zz-derpfleet-https.conf:3\n"


def ids(host: Host, site: Site, facts: Facts) -> list[str]:
    resources = roles.compile_host(host, site, facts, shipment(host))
    return [resource.id for resource in compile_plan(resources, mode="apply").resources]


def running(facts: Facts, *ports: int) -> Facts:
    there = [
        Listener(proto="tcp", address="0.0.0.0", port=port, pid=9, program="nginx", unit="nginx.service")
        for port in ports
    ]
    return replace(facts, listening=(*facts.listening, *there))


def in_order(found: list[str], *wanted: str) -> bool:
    return sorted(wanted, key=found.index) == list(wanted)


def test_a_running_nginx_serves_on_until_the_order_is_done() -> None:
    host, site, facts = load("certificate-lost")
    found = ids(host, site, running(facts, 80, 443))
    assert in_order(found, READY, ORDER, HTTP, HTTPS)
    assert ASIDE not in found and BACK not in found


@pytest.mark.parametrize("ports", [(), (80,), (443,)])
def test_an_nginx_that_does_not_serve_both_gets_its_http_server_first(ports: tuple[int, ...]) -> None:
    host, site, facts = load("certificate-lost")
    assert in_order(ids(host, site, running(facts, *ports)), ASIDE, HTTP, ORDER, BACK, HTTPS)


def test_an_nginx_without_our_http_server_gets_it_first() -> None:
    """It has both ports for other sites, and does not answer our challenge."""
    host, site, facts = load("certificate-lost")
    files = {path: fact for path, fact in facts.files.items() if not path.endswith("derpfleet-http.conf")}
    without = replace(running(facts, 80, 443), files=files)
    assert in_order(ids(host, site, without), ASIDE, HTTP, ORDER, BACK, HTTPS)


def test_a_server_that_a_certificate_does_not_repair_is_moved_only_after_the_order() -> None:
    host, site, facts = load("certificate-lost")
    folder = "/etc/nginx/sites-enabled"
    said = {"nginx": Output(status=1, stdout="", stderr=CLASH.format(folder))}
    broken = replace(running(facts, 80, 443), commands={**facts.commands, **said})
    assert in_order(ids(host, site, broken), ORDER, ASIDE, HTTP, BACK, HTTPS)


def test_a_server_of_a_former_name_is_moved_only_after_the_order() -> None:
    """The certificate of the new name does not bring back the one that the server reads."""
    host, site, facts = load("certificate-lost")
    named = host.model_copy(update={"domain": "new.example.org"})
    assert in_order(ids(named, site, running(facts, 80, 443)), ORDER, ASIDE, HTTP, BACK, HTTPS)
