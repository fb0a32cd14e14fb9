"""docs/TESTED.md lists the rows of the lab's covering array, and names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

from inventory.choices import FLAVOURS, FRONTS
from tests.e2e.test_pairs import ROWS
from tests.support.named import NAMES

PAGE = (Path(__file__).parent.parent / "docs/TESTED.md").read_text()
TABLE = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in PAGE.splitlines() if "|" in line]
SYSTEMS = {"sg1": "Debian 13", "ub1": "Ubuntu 24.04", "el1": "Enterprise Linux 9"}
PROGRAMS = {"python": "ours", "derper": "derper"}


def test_the_rows_are_those_of_the_tests() -> None:
    listed = {row[:4] for row in TABLE if row[-1] == "`test_a_pair`"}
    assert listed == {(SYSTEMS[host], PROGRAMS[program], *rest[:2]) for host, _, program, *rest in ROWS}


def test_every_distribution_is_beside_every_program_and_runner() -> None:
    listed = {(row[0], row[1], under) for row in TABLE if len(row) == 5 for under in row[2].split(", ")}
    pairs = {(PROGRAMS[program], under) for program, under in FLAVOURS.values()}
    assert {(system, *pair) for system in ("Debian 12", *SYSTEMS.values()) for pair in pairs} <= listed


def test_every_front_is_beside_each_program() -> None:
    rows = [row for row in TABLE if len(row) == 5]
    listed = {(row[1], front) for row in rows for front in FRONTS if front in re.split(r"[ ,:]+", row[3])}
    fronts = set(FRONTS) - {"none", "external"}  # another word for direct; a row of the second table
    assert {(program, front) for program in PROGRAMS.values() for front in fronts} <= listed


def test_the_tests_are_there() -> None:
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert named and [name for name in named if name not in NAMES] == []
