"""The command that deploys a broken part again."""

from __future__ import annotations

import re

import pytest

from fleet.shared.parts import ROLES, deploy_part
from inventory.model import Certificate, Host, Region
from probe.target import Part
from roles import ROLES as COMPILED

HK1 = Host(name="hk1", domain="hk1.example.org", region=Region(id=900, code="hkg", name="Hong Kong"))


def test_every_part_has_a_role_of_a_relay_host() -> None:
    assert set(ROLES) == set(Part) - {Part.CERTIFICATE, Part.PROCESS}
    assert set(ROLES.values()) <= set(COMPILED)


@pytest.mark.parametrize(("front", "role"), [("nginx", "nginx"), ("none", "relay")])
def test_the_front_may_be_the_relay_itself(front: str, role: str) -> None:
    host = HK1.model_copy(update={"front": front})
    assert deploy_part(host, Part.FRONT) == f"invoke deploy --host hk1 --only role:{role}"


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        ({"source": "acme"}, "invoke renew --host hk1 --force"),
        ({"source": "manual"}, "replace the files .*, then invoke deploy"),
        ({"source": "self-signed"}, "invoke deploy --host hk1"),
        ({"source": "self-signed", "pin": "ab" * 32}, "set .*certificate.pin to .*, then invoke deploy"),
    ],
)
def test_another_certificate_comes_from_its_source(fields: dict[str, str], step: str) -> None:
    host = HK1.model_copy(update={"certificate": Certificate(**fields)})
    assert re.match(step, deploy_part(host, Part.CERTIFICATE))


@pytest.mark.parametrize(
    ("flavour", "command"),
    [("python", "systemctl restart derpfleet-relay.service"), ("docker", "docker restart derpfleet-derper")],
)
def test_the_process_is_restarted_by_its_runner(flavour: str, command: str) -> None:
    host = HK1.model_copy(update={"flavour": flavour})
    assert deploy_part(host, Part.PROCESS) == f"on hk1: {command}, then invoke verify --host hk1"
