"""The command that deploys a broken part again."""

from __future__ import annotations

import pytest

from fleet.shared.parts import ROLES, deploy_part
from inventory.model import Host, Region
from probe.target import Part
from roles import ROLES as COMPILED

HK1 = Host(name="hk1", domain="hk1.example.org", region=Region(id=900, code="hkg", name="Hong Kong"))


def test_every_part_has_a_role_of_a_relay_host() -> None:
    assert set(ROLES) == set(Part)
    assert set(ROLES.values()) <= set(COMPILED)


@pytest.mark.parametrize(("front", "role"), [("nginx", "nginx"), ("none", "relay")])
def test_the_front_may_be_the_relay_itself(front: str, role: str) -> None:
    host = HK1.model_copy(update={"front": front})
    assert deploy_part(host, Part.FRONT) == f"invoke deploy --host hk1 --only role:{role}"
    assert deploy_part(host, Part.CERTIFICATE) == "invoke deploy --host hk1 --only role:certificate"
