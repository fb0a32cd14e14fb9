"""Every fault of the catalogue is found on its rung, with its cause and the next step."""

from __future__ import annotations

import pytest

from tests.probe.connection_faults import CONNECTION_FAULTS
from tests.probe.derp_faults import DERP_FAULTS
from tests.probe.seeding import Stage, find

FAULTS = CONNECTION_FAULTS | DERP_FAULTS


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found_and_named(fault: str, stage: Stage) -> None:
    find(stage, FAULTS[fault])


def test_no_fault_of_one_half_hides_one_of_the_other() -> None:
    assert not CONNECTION_FAULTS.keys() & DERP_FAULTS.keys()
