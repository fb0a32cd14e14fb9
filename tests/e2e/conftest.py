"""A lab for each file, the site file beside it, and two real tailscale nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import lab
from lab.client import LabClient
from lab.topology import PARTS
from tests.e2e.desk import Desk
from tests.e2e.steps import derper_image, exchange, settled
from tests.support.labs import own_lab


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    """A lab for the file alone, with the hosts that its ONLY names; else all."""
    name, only = request.module.__name__.rpartition(".test_")[2], getattr(request.module, "ONLY", PARTS)
    with own_lab(tmp_path_factory, name, only=only) as own:
        yield own


@pytest.fixture(scope="module")
def desk(stage: lab.Lab) -> Desk:
    return Desk(stage)


@pytest.fixture(scope="module")
def nodes(desk: Desk) -> tuple[LabClient, LabClient]:
    """Two nodes that can meet only through hk1, which is deployed as the lab's site file says."""
    settled(desk)
    found = desk.stage.clients["site-a"], desk.stage.clients["site-b"]
    for node in found:
        node.join()
    exchange(found, "hk")
    return found


@pytest.fixture(scope="module")
def derper_archive(stage: lab.Lab) -> str:
    """The name of our image of Go's derper, beside the site file."""
    return derper_image(stage)


@pytest.fixture
def edited(desk: Desk) -> Iterator[Callable[..., None]]:
    """`edited(host, **settings)` for one test; afterwards the site file is as before."""
    before = desk.stage.site_file.read_text()
    yield desk.edit
    desk.stage.site_file.write_text(before)
