"""What `invoke renew` runs."""

from __future__ import annotations

import pytest

import inventory
from engine.facts import Facts
from engine.plan import compile_plan
from engine.resource import Command
from roles import certificate
from tests.roles.cases import FOLDER


@pytest.mark.parametrize(
    ("force", "argv", "unless"),
    [(False, ("renew",), ("valid",)), (True, ("renew", "--force"), ("younger", "1795371962.5"))],
)
def test_renewal(force: bool, argv: tuple[str, ...], unless: tuple[str, ...]) -> None:
    host = inventory.load(FOLDER / "bare" / "site.yml").hosts["hk1"]
    resources = certificate.renewal(host, Facts(now=1795371962.5), force=force)
    renew, served = compile_plan(resources, mode="apply").resources
    assert isinstance(renew, Command) and isinstance(served, Command)
    assert (renew.argv[1:], renew.unless[1:]) == (argv, unless)
    assert (served.argv[1:], served.unless[1:]) == (("deploy",), ("served",))
    assert served.needs == (renew.id,)
