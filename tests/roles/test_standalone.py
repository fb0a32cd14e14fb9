"""A program that has certbot's port is refused, or stopped for the orders."""

from __future__ import annotations

from dataclasses import replace

import roles
from engine.resource import File
from tests.roles.cases import load, shipment

WAY_OUT = "certificate.challenge: standalone, with certificate.stop: apache2.service."


def test_the_program_that_is_named_may_have_the_port_and_no_other() -> None:
    host, site, facts = load("standalone")
    assert roles.refusals(host, site, facts) == []
    other = host.certificate.model_copy(update={"stop": "caddy.service"})
    [refusal] = roles.refusals(host.model_copy(update={"certificate": other}), site, facts)
    assert "port 80/tcp of hk1" in refusal and "taken by apache2 (pid 812, apache2.service)" in refusal


def test_the_refusal_names_the_way_out_for_services_alone() -> None:
    host, site, facts = load("standalone")
    by_http = host.certificate.model_copy(update={"challenge": "http", "stop": None})
    host = host.model_copy(update={"certificate": by_http})
    [refusal] = roles.refusals(host, site, facts)
    assert refusal.endswith(WAY_OUT)
    without = [replace(one, unit="session-3.scope") for one in facts.listening]
    [refusal] = roles.refusals(host, site, replace(facts, listening=tuple(without)))
    assert "standalone" not in refusal


def test_the_unit_starts_it_again_before_the_certificate_is_served_and_after_every_failure() -> None:
    host, site, facts = load("standalone")
    plan = {one.id: one for one in roles.compile_host(host, site, facts, shipment(host))}
    unit = plan["file:/etc/systemd/system/derpfleet-certificate.service"]
    assert isinstance(unit, File) and isinstance(unit.content, bytes)
    text = unit.content.decode()
    steps = [line for line in text.splitlines() if line.startswith("Exec")]
    program = "/opt/derpfleet/bin/certificate"
    assert steps == [
        f"ExecStartPre=+{program} pause",
        f"ExecStopPost=+{program} resume",
        f"ExecStart={program} obtain",
        f"ExecStartPost=+{program} resume",
        f"ExecStartPost=+{program} deploy --unless-served",
    ]
