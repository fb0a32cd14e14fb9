"""The commands of `invoke renew`."""

from __future__ import annotations

from dataclasses import replace

import pytest

import inventory
from engine.facts import Output
from engine.plan import compile_plan
from engine.resource import Command
from roles import relay
from roles.certificate import renewal
from tests.roles.cases import FOLDER
from tests.support.facts import DEBIAN_12


@pytest.mark.parametrize(
    ("force", "argv", "unless"),
    [(False, ("renew",), ("valid",)), (True, ("renew", "--force"), ("younger", "1795371962.5"))],
)
def test_renewal(force: bool, argv: tuple[str, ...], unless: tuple[str, ...]) -> None:
    host = inventory.load(FOLDER / "bare" / "site.yml").hosts["hk1"]
    resources = renewal.run(host, replace(DEBIAN_12, now=1795371962.5), force=force)
    renew, served = compile_plan(resources, mode="apply").resources
    assert isinstance(renew, Command) and isinstance(served, Command)
    assert (renew.argv[1:], renew.unless[1:]) == (argv, unless)
    assert (served.argv[1:], served.unless[1:]) == (("deploy",), ("served",))
    assert served.needs == (renew.id,)


@pytest.mark.parametrize(
    ("case", "output", "withdrawn"),
    [
        ("bare", Output(status=1, stdout="disabled\n", stderr=""), True),
        ("bare", Output(status=0, stdout="enabled\n", stderr=""), False),
        # It was never deployed.
        ("bare", Output(status=1, stdout="", stderr="Failed to get unit file state"), False),
        ("docker", Output(status=0, stdout="", stderr=""), True),
        ("docker", Output(status=0, stdout="5c1ab0\n", stderr=""), False),
        ("docker", Output(status=1, stdout="", stderr="Cannot connect to the Docker daemon"), False),
        ("docker", Output(status=127, stdout="", stderr="docker: No such file or directory"), False),
    ],
)
def test_a_withdrawn_relay_is_not_taken_for_one_that_is_down(
    case: str, output: Output, withdrawn: bool
) -> None:
    host = inventory.load(FOLDER / case / "site.yml").hosts["hk1"]
    assert set(relay.ask_withdrawn(host).commands) == {"withdrawn"}
    assert relay.is_withdrawn(host, replace(DEBIAN_12, commands={"withdrawn": output})) is withdrawn
