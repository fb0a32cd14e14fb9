"""A control server as it is now: its version, its map, and the site's hosts in it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from control.headscale.facts import HeadscaleRefused
from control.headscale.server import HeadscaleServer
from control.paste import PasteServer
from control.served import Map
from engine.facts import Facts, Output
from tests.control.headscale_host import HK1, MAP, STRANGERS, facts, site_of


class Reach(SimpleNamespace):
    """A way to a headscale host with these facts."""

    facts: Facts

    def session(self, _: Any) -> Reach:
        return self

    def __enter__(self) -> Reach:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, _: Any) -> Facts:
        page = Output(status=0, stdout='{"regions": {}}', stderr="")
        return replace(self.facts, commands={**self.facts.commands, "served": page})


@pytest.mark.parametrize(
    ("version", "map_text", "program", "in_map"),
    [
        ("v0.29.2\n", MAP, "headscale 0.29.2", set()),
        ("v0.29.2\n", MAP + HK1, "headscale 0.29.2", {"hk1"}),
        ("dev", MAP, "headscale of an unknown version", set()),
        ("v0.29.2\n", MAP + STRANGERS, "headscale 0.29.2", set()),
    ],
)
def test_headscale_is_asked_once(version: str, map_text: str, program: str, in_map: set[str]) -> None:
    look = HeadscaleServer(site_of(), Reach(facts=facts(version=version, map=map_text))).look()
    assert (look.program, look.in_map) == (program, in_map)
    assert isinstance(look.served, Map)


def test_a_headscale_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(HeadscaleRefused):
        HeadscaleServer(site_of(), Reach(facts=facts(config=None))).look()


def test_where_a_person_pastes_the_map_there_is_nobody_to_ask() -> None:
    assert PasteServer(site_of(), Reach()).look() is None
