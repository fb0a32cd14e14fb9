"""Which release answers: the new one, or another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from artefacts.binary import module_version
from artefacts.programs import DERPER
from engine.facts import Facts, Output
from engine.plan import compile_plan
from fleet.shared.running import RunningProgram, named, other_than, running
from roles import compile_host
from tests.roles.cases import load, shipment
from tests.support.facts import DEBIAN_12

DIGEST = f"sha256:{'ab' * 32}"


def facts(**words: str) -> Facts:
    commands = {name: Output(status=0, stdout=text, stderr="") for name, text in words.items()}
    return replace(DEBIAN_12, commands=commands)


def test_a_program_says_what_it_is() -> None:
    page = 'version{version="0.1.0"} 1\nrelay_release{id="0123456789abcdef"} 1\n'
    assert running(facts(metrics=page)) == RunningProgram(version="0.1.0", release="0123456789abcdef")
    assert running(facts(image=f"derper:1 {DIGEST}\n")) == RunningProgram(image="derper:1", image_id=DIGEST)
    assert running(facts()) == running(facts(metrics="<b>", image="one")) == RunningProgram()


@pytest.mark.parametrize(
    ("wanted", "found", "other"),
    [
        ({"release": "relay aa"}, RunningProgram(release="aa"), ""),
        ({"release": "relay aa"}, RunningProgram(release="bb"), "bb"),
        ({"release": "relay aa"}, RunningProgram(), ""),  # an older one does not say it
        ({"release": "relay aa", "version": "1.104.5"}, RunningProgram(version="1.104.5-ERR-BuildInfo"), ""),
        ({"release": "relay aa", "version": "1.104.5"}, RunningProgram(version="1.104.5"), ""),
        ({"release": "relay aa", "version": "1.104.5"}, RunningProgram(version="1.104.50"), "1.104.50"),
        ({"release": "relay aa", "version": "1.104.5"}, RunningProgram(version="1.102.5"), "1.102.5"),
        ({"release": "relay aa", "version": "1.104.5"}, RunningProgram(), ""),
        ({"release": "image derper:2"}, RunningProgram(image="derper:2", version="1.104.5"), ""),
        ({"release": "image derper:2"}, RunningProgram(image="derper:1"), "derper:1"),
        ({"release": "image derper:2"}, RunningProgram(), ""),
        ({}, RunningProgram(version="1"), ""),
        ({}, RunningProgram(release="bb"), ""),  # a part of a plan runs no program
        ({}, RunningProgram(image="derper:1"), ""),
        ({"release": ""}, RunningProgram(release="bb"), ""),
    ],
)
def test_another_release_is_named(wanted: dict[str, str], found: RunningProgram, other: str) -> None:
    assert other_than(wanted, found) == other


def test_the_version_of_our_derper_is_that_of_its_module() -> None:
    assert module_version(DERPER).count(".") == 2


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("bare", {"release": "relay a1a1a1a1a1a1"}),
        ("native", {"release": "relay a1a1a1a1a1a1", "version": module_version(DERPER)}),
        ("docker", {"release": "image derpfleet/derper:0123456789ab"}),
    ],
)
def test_a_plan_names_the_program_that_it_runs(case: str, words: dict[str, str]) -> None:
    host, site, facts = load(case)
    plan = compile_plan(compile_host(host, site, facts, shipment(host)), mode="apply")
    found = named(host, plan)
    assert found.keys() == words.keys()
    assert all(found[key].startswith(word) for key, word in words.items())
