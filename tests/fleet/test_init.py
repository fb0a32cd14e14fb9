"""`invoke init --from`: a site file of the relays that somebody has, with all that is missing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import inventory
from control.derpmap import derpmap
from engine.report import Report
from fleet.init import NothingToImport, WouldOverwrite, init
from inventory.words import PLACEHOLDER
from tests.support.official import TAILSCALES
from tests.support.site_text import GOOD, SECOND, compiled

OURS = derpmap(compiled(GOOD + SECOND))
Made = Callable[[str], tuple[Path, str]]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Write that text to a file, make a site file of it; return its path and what was said."""

    def make(text: str) -> tuple[Path, str]:
        shown, source = io.StringIO(), tmp_path / "theirs"
        source.write_text(text)
        path = tmp_path / "site.yml"
        init(Report(console=Console(file=shown, width=300)), path, source)
        return path, shown.getvalue()

    return make


def test_it_says_what_became_a_host_what_did_not_and_what_is_missing(made: Made) -> None:
    path, said = made(json.dumps({"derpMap": {"Regions": {**OURS["Regions"], **TAILSCALES["Regions"]}}}))
    assert "Its hosts: hk, sg\n" in said
    assert said.count("Left out, as a comment in the file: region ") == 3
    assert "invoke official --take fra has" in said
    assert "Still to fill in:\n  line " in said and "agree_terms: must be true" in said
    assert f"invoke trust --host NAME --site {path}" in said
    path.write_text(path.read_text().replace("agree_terms: false", "agree_terms: true"))
    assert derpmap(inventory.load(path)) == OURS


def test_a_file_of_headscale_asks_for_its_url(made: Made) -> None:
    node = "{name: a, regionid: 900, hostname: a.example.org}"
    path, said = made(f"regions:\n  900: {{regionid: 900, regioncode: hk, nodes: [{node}]}}\n")
    assert "headscale.url" in said
    text = path.read_text().replace(PLACEHOLDER, "https://headscale.example.org")
    path.write_text(text.replace("agree_terms: false", "agree_terms: true"))
    assert inventory.load(path).control.url == "https://headscale.example.org"


@pytest.mark.parametrize(
    ("content", "what", "why"),
    [
        (b"{}", "has no map", "no derpMap, and no Regions"),
        (b'{"derpMap": {"Regions": {}}}', "no region of", "it has no region"),
        (json.dumps(TAILSCALES).encode(), "no region of", "region 1 (nyc): ids below 900 are Tailscale's"),
        (b"\xff", "has no map", "it is not UTF-8 text"),
        (b" " * (5 << 20), "has no map", "more than 4 MiB"),
        (b"{" * 5000, "has no map", "line 1, column"),
    ],
)
def test_nothing_is_written_without_a_host(tmp_path: Path, content: bytes, what: str, why: str) -> None:
    source, path = tmp_path / "theirs", tmp_path / "site.yml"
    source.write_bytes(content)
    with pytest.raises(NothingToImport, match=what) as error:
        init(Report(json_lines=True), path, source)
    assert why in error.value.why and error.value.next
    assert not path.exists()


def test_a_file_that_is_not_there_and_a_site_file_that_is(tmp_path: Path, made: Made) -> None:
    with pytest.raises(NothingToImport, match="cannot be read"):
        init(Report(json_lines=True), tmp_path / "site.yml", tmp_path / "none")
    whole: Any = json.dumps(OURS)
    made(whole)
    with pytest.raises(WouldOverwrite):
        made(whole)
