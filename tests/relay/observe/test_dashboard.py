"""The Grafana dashboard asks for metrics that exist, and its panels do not overlap."""

import json
import re

import pytest

from inventory.checkout import CHECKOUT
from relay.core.stats import Stats
from relay.observe.metrics import COUNTERS, GAUGES, LABELLED, make_registry

DASHBOARD = json.loads((CHECKOUT / "files/grafana/derpfleet-relay.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
_NOT_METRICS = {
    "sum",
    "min",
    "by",
    "rate",
    "increase",
    "time",
    "instance",
    "reason",
    "kind",
    "le",
    "disposition",
    "label_values",
}


def known_metrics():
    full = Stats(gauges=dict.fromkeys(GAUGES, 0.0), labelled={name: {"x": 1} for name in LABELLED})
    return {sample.name for metric in make_registry(lambda: full).collect() for sample in metric.samples} | {
        "derp_packets_dropped",
        "derp_bytes_dropped",
    }


def expressions():
    queries = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return [
        *queries,
        *(each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"),
    ]


def test_every_metric_that_is_asked_for_exists():
    for expression in expressions():
        words = set(re.findall(r"[a-z_]{2,}", re.sub(r"\{.*?\}|\[.*?\]", "", expression)))
        assert words - _NOT_METRICS <= known_metrics(), expression
        assert words & known_metrics()


def test_what_matters_is_on_it():
    asked = " ".join(expressions())
    important = [
        "relay_front_ok",
        "relay_consistent",
        "derp_packets_dropped",
        "stun_requests",
        "relay_admissions",
        "relay_closes",
    ]
    assert all(name in asked for name in important)
    assert sum(name in asked for name, _ in COUNTERS.values()) >= 12


def test_panels_do_not_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_can_be_filtered_by_relay_and_source(panel):
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert '{instance=~"$instance"}' in target["expr"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_ids_are_unique():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
