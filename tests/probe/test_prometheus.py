"""The metrics of a status are what the rules ask for, and promtool agrees with both."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import pytest
import yaml

from engine.rollout.progress import RolloutProgress
from probe.prometheus import ROLLOUT_STATES, render
from relay.observe import metrics
from tests.probe.test_page import HK1, MADE, SG1
from tests.support.promtool import promtool
from tests.test_imports import ROOT

RULES = ROOT / "files" / "prometheus" / "derpfleet.rules.yml"
TESTS = ROOT / "tests" / "files" / "prometheus" / "derpfleet.test.yml"
CARDS = [replace(HK1, generation=12), SG1, replace(HK1, host="fra1", proof=None)]
TEXT = render(CARDS, made=MADE, rollout="paused")


def checked(*argv: str, input: str = "") -> str:
    done = subprocess.run(
        [str(promtool()), *argv], input=input, capture_output=True, text=True, check=False, timeout=60
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_metrics_of_each_relay() -> None:
    lines = TEXT.splitlines()
    for line in (
        'derpfleet_proved{host="hk1",region="hkg"} 1',
        'derpfleet_proved{host="sg1",region="sin"} 0',
        'derpfleet_proved{host="fra1",region="hkg"} 0',
        'derpfleet_failed_rung{host="sg1",rung="probe"} 1',
        'derpfleet_failed_rung{host="hk1",rung="probe"} 0',
        'derpfleet_proof_seconds{host="hk1",region="hkg"} 1.31',
        'derpfleet_certificate_seconds{host="hk1",region="hkg"} 5287680',
        'derpfleet_certificate_share{host="hk1",region="hkg"} 0.68',
        'derpfleet_clients{host="hk1",region="hkg"} 3',
        'derpfleet_rollout_state{state="paused"} 1',
        'derpfleet_rollout_state{state="running"} 0',
        "derpfleet_checked_timestamp_seconds 1795343400",
    ):
        assert line in lines
    assert not any('clients{host="sg1"' in line or 'seconds{host="fra1"' in line for line in lines)


@pytest.mark.parametrize("state", ["withdrawn", "drained"])
def test_a_relay_that_was_stopped_is_not_proved_on_purpose(state: str) -> None:
    text = render([replace(SG1, stopped=state)], made=MADE)
    assert 'derpfleet_withdrawn{host="sg1",region="sin"} 1' in text
    assert " 1" not in "".join(line for line in text.splitlines() if "failed_rung{" in line)


@pytest.mark.parametrize(("generation", "since"), [(12, ""), (12, "2026-03-04"), (0, "2026-03-04")])
def test_changes_that_nobody_has_confirmed_are_seen(generation: int, since: str) -> None:
    lines = render([replace(HK1, generation=generation, unconfirmed_since=since)], made=MADE).splitlines()
    assert f'derpfleet_generation{{host="hk1",region="hkg"}} {generation}' in lines
    assert f'derpfleet_unconfirmed{{host="hk1",region="hkg"}} {int(bool(since))}' in lines


def test_a_host_that_told_nothing_is_not_called_confirmed() -> None:
    assert "confirmed" not in render([replace(HK1, generation=0, unconfirmed_since="")], made=MADE)


def test_how_far_a_rollout_is_has_a_word_that_is_known() -> None:
    assert (*RolloutProgress,) == ROLLOUT_STATES
    assert "rollout" not in render([HK1], made=MADE)


def test_promtool_finds_nothing_wrong_with_the_metrics() -> None:
    assert checked("check", "metrics", input=TEXT) == ""
    assert checked("check", "metrics", input=TEXT + 'derpfleet_proved{host="hk1 1\n')


def test_the_rules_are_valid_and_fire_as_they_should() -> None:
    assert checked("check", "rules", str(RULES)) == ""
    assert checked("test", "rules", str(TESTS)) == ""


def test_every_rule_is_tested_and_asks_for_metrics_that_exist() -> None:
    names = re.findall(r"- alert: (\w+)", RULES.read_text())
    tested = set(re.findall(r"alertname: (\w+)", TESTS.read_text()))
    assert set(names) == tested
    asked = set(re.findall(r"\b(?:derpfleet|relay)_\w+", " ".join(
        re.findall(r"expr:(.*?)(?=\n {8}\w)", RULES.read_text(), re.DOTALL)
    )))  # fmt: skip
    known = set(re.findall(r"^# TYPE (\S+)", TEXT, re.MULTILINE))
    source = (ROOT / "relay" / "observe" / "metrics.py").read_text()
    assert {name for name in asked - known if f'"{name}"' not in source} == set()
    assert metrics.__doc__
    assert len(asked) > 4


@pytest.mark.parametrize("rule", ["RelayNotProved", "Unconfirmed", "StuckRollout", "NobodyChecked"])
def test_a_rule_that_never_fires_fails_its_test(rule: str, tmp_path: object) -> None:
    folder = ROOT.__class__(str(tmp_path))
    broken = re.sub(rf"(alert: {rule}\n\s+expr: )", r"\1vector(1) == 0 and ", RULES.read_text())
    (folder / "derpfleet.rules.yml").write_text(broken)
    text = TESTS.read_text().replace("../../../files/prometheus/", "")
    (folder / "test.yml").write_text(text)
    assert rule in checked("test", "rules", str(folder / "test.yml"))


def test_the_example_of_alertmanager_routes_every_severity() -> None:
    route = yaml.safe_load((RULES.parent / "alertmanager.example.yml").read_text())
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    severities = {rule["labels"]["severity"] for rule in rules}
    routed = {one["matchers"][0]: one["receiver"] for one in route["route"]["routes"]}
    assert set(routed) == {f'severity="{one}"' for one in severities}
    assert {*routed.values(), route["route"]["receiver"]} == {one["name"] for one in route["receivers"]}
    names = {rule["alert"] for rule in rules}
    for one in route["inhibit_rules"]:
        for matcher in (*one["source_matchers"], *one["target_matchers"]):
            assert matcher.removeprefix('alertname="').removesuffix('"') in names
