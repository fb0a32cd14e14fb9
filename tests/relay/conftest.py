"""Fixtures that several files of the switch's and the session's tests share."""

from __future__ import annotations

import pytest

from tests.relay.world import World


@pytest.fixture
def world():
    world = World()
    yield world
    assert world.switch.consistency_check() == []


@pytest.fixture
def alice(world):
    return world.connect("alice")


@pytest.fixture
def bob(world):
    return world.connect("bob")
