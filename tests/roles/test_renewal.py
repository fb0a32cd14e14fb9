"""The commands of `invoke renew`."""

from __future__ import annotations

from dataclasses import replace

import pytest

import inventory
from engine.plan import compile_plan
from engine.resource import Command, File
from roles import paths, relay
from roles.certificate import renewal
from roles.relay import OutOfService
from tests.roles.cases import FOLDER, load, plan_of
from tests.support.facts import DEBIAN_12, EMPTY_FILE


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


@pytest.mark.parametrize("case", ["bare", "docker", "supervisord"])
def test_a_withdrawn_relay_is_not_taken_for_one_that_is_down(case: str) -> None:
    """A deploy that died before the relay was started leaves a unit that is disabled, or none."""
    _, _, facts = load(case)
    assert relay.ASK_WITHDRAWN.files == (paths.WITHDRAWN,)
    assert not relay.out_of_service(facts)
    assert not relay.out_of_service(replace(facts, files={**facts.files, paths.KEY: EMPTY_FILE}))
    [note] = [one for one in relay.stopped(OutOfService.DRAINED) if isinstance(one, File)]
    notes = {"": "withdrawn", "withdrawn\n": "withdrawn", note.content.decode(): "drained"}
    for content, state in notes.items():
        there = {paths.WITHDRAWN: replace(EMPTY_FILE, content=content)}
        assert relay.out_of_service(replace(facts, files={**facts.files, **there})) == state


def test_the_host_asks_for_the_same_note() -> None:
    assert (relay.WITHDRAWAL.argv, relay.WITHDRAWAL.says) == (("ls", paths.WITHDRAWN), paths.WITHDRAWN)
    (note,) = (one for one in relay.stopped(OutOfService.DRAINED) if isinstance(one, File))
    assert note.path == paths.WITHDRAWN


def test_the_note_goes_before_the_relay_starts() -> None:
    order = [resource["id"] for resource in plan_of("bare")["resources"]]
    assert order.index(f"absent:{paths.WITHDRAWN}") < order.index(f"service:{paths.SERVICE}")
