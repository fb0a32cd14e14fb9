"""docs/events.schema.json describes the events of --json: all of them, and no other."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import events
from engine.report import Report
from fleet import status
from fleet.shared.host_status import HostStatus
from fleet.shared.prove import show
from inventory.errors import DerpfleetError
from probe.proof import LADDER, Proof, Rung
from tests.fleet.test_journey import travel
from tests.fleet.test_words import CARD
from tests.test_imports import ROOT

SCHEMA = json.loads((ROOT / "docs" / "events.schema.json").read_text())
EVENTS = SCHEMA["$defs"]
RAISED = {"locked", "refused", "crash"}  # become the event `failure`
TYPES = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list,
    "null": type(None),
}


def wrong(value: Any, schema: Any, at: str = "") -> Iterator[str]:
    """Yield the deviations from the part of JSON Schema that the file uses."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    is_a = [kind for kind in kinds if isinstance(value, TYPES[kind])]
    if kinds and (not is_a or (isinstance(value, bool) and "boolean" not in kinds)):
        yield f"{at} is {value!r}, and no {kinds}"
        return
    if "const" in schema and value != schema["const"]:
        yield f"{at} is {value!r}, and not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at} is {value!r}, and none of {schema['enum']}"
    if isinstance(value, dict):
        yield from (f"{at} lacks {name}" for name in schema.get("required", ()) if name not in value)
        for name, member in value.items():
            more = schema.get("additionalProperties", {})
            below = schema.get("properties", {}).get(name, more)
            if below is False:
                yield f"{at}.{name} is not described"
            else:
                yield from wrong(member, below, f"{at}.{name}")
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from wrong(item, schema.get("items", {}), f"{at}.{number}")


def emitted() -> Iterator[tuple[str, set[str], bool]]:
    """Yield each event of the product's code: its name, its fields, and whether these are all."""
    for folder in ("engine", "control", "fleet"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                pairs: list[tuple[Any, Any]] = []
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "emit":
                    pairs = [(word.arg, word.value) for word in node.keywords]
                elif isinstance(node, ast.Dict):
                    keys = [getattr(key, "value", None) for key in node.keys]
                    pairs = list(zip(keys, node.values, strict=True))
                found = dict(pairs)
                name = getattr(found.get("event"), "value", None)
                if isinstance(name, str):
                    yield name, set(found) - {None}, None not in found


def test_every_event_is_described_and_no_other() -> None:
    of_agent = {*events._TALK, *events._WORK} - RAISED
    assert set(EVENTS) == of_agent | {name for name, *_ in emitted()}
    assert [one["$ref"] for one in SCHEMA["oneOf"]] == [f"#/$defs/{name}" for name in EVENTS]


def test_the_fields_in_the_code_are_those_that_are_described() -> None:
    seen = list(emitted())
    assert len(seen) > 10
    for name, fields, whole in seen:
        assert fields <= {*EVENTS[name]["properties"]}, name
        if whole:
            assert {*EVENTS[name]["required"]} <= fields | {"host"}, name


@pytest.mark.parametrize("name", sorted({*events._TALK, *events._WORK} - RAISED))
def test_an_agents_event_is_described(name: str) -> None:
    fields = {**events._TALK, **events._WORK}[name].keys() - {"z"}
    described = EVENTS[name]["properties"].keys() - {"event", "host", "at"}
    reasons = {one for fields in events._REASONS.values() for one in fields} if name == "result" else set()
    assert described == fields | events._STAMPS.keys() | reasons
    assert set(EVENTS[name]["required"]) == (described | {"event", "host"}) - reasons


def test_events_are_as_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    travel(tmp_path, monkeypatch)
    report = Report(json_lines=True)
    rungs = tuple(Rung(name, "ok", "seen") for name in LADDER)
    show(report, "hk1", Proof(target="hk1", address="hk1.example.org", rungs=rungs, ms=1.0, at="2026"))
    report.emit(event="status", **status._row(CARD, HostStatus()))
    report.failure(DerpfleetError("a", where="b", why="c", next="d"), log="e", subject="f")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["event"] for line in lines} == {"plan", "proof", "status", "failure"}
    for line in lines:
        assert list(wrong(line, EVENTS[line["event"]])) == []
    assert list(wrong(lines[0] | {"mode": "all", "other": 1}, EVENTS["plan"])) == [
        ".mode is 'all', and none of ['check', 'prepare', 'apply']",
        ".other is not described",
    ]
