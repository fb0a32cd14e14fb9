"""`invoke lab.status`, as a person reads it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

import lab
from engine.report import Report
from fleet import lab as verb

PARTS = {
    "acme": {"alive": True},
    "hk1": {"alive": False, "address": "198.51.100.11", "domain": "hk1.derp.lab"},
    "site-a": {"alive": True, "client": False},
}


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (
            {"up": False, "namespace": "dfl-1", "network": "198.51.100.0/24", "parts": PARTS},
            [
                "acme    up",
                "hk1     down         hk1.derp.lab  198.51.100.11",
                "site-a  up           tailscale client not started",
                "network 198.51.100.0/24 in the namespace dfl-1",
            ],
        ),
        ({"up": False, "parts": {}}, ["there is no lab here: invoke lab.up"]),
    ],
)
def test_a_line_for_each_part(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], lines: list[str]
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(lab, "status", lambda _: found)
    verb.status(Report(console=Console(file=shown, width=100)))
    assert [line.rstrip() for line in shown.getvalue().splitlines()] == lines
