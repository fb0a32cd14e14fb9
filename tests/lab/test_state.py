from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab import state
from lab.topology import INNER_NETWORKS, WAY_OUT_NETWORKS, Topology

TOPOLOGY = Topology("abc123", INNER_NETWORKS[1], WAY_OUT_NETWORKS[2])


def test_addresses_and_ready_parts_are_read_back(tmp_path: Path) -> None:
    kept = state.State(tmp_path, TOPOLOGY)
    kept.write()
    for part in ("sg1", "hk1", "sg1"):
        kept.is_ready(part)
    again = state.read(tmp_path)
    assert again is not None
    assert again.topology == TOPOLOGY
    assert again.ready == ["sg1", "hk1"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": 1, "id": "x", "network": "no", "way_out": "", "ready": []}',
    ],
)
def test_a_file_that_says_nothing_is_no_state(tmp_path: Path, text: str) -> None:
    (tmp_path / state.FILE).write_text(text)
    assert state.read(tmp_path) is None


def test_the_state_of_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    kept = state.State(tmp_path, TOPOLOGY)
    kept.write()
    raw = json.loads((tmp_path / state.FILE).read_text())
    (tmp_path / state.FILE).write_text(json.dumps(raw | {"version": state.VERSION + 1}))
    assert state.read(tmp_path) is None
