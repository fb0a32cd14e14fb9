"""A relay that somebody else runs, whose host has no sshd; and a map file of the controller."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from control.headscale.reader import parse_map
from tests.e2e.desk import Desk
from tests.e2e.steps import settled

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

ONLY = ["hk1", "hs1", "acme"]
THEIRS = """\
regions:
  910:  # ask Ops before you edit
    regionid: 910
    regioncode: office
    regionname: Office
    nodes: [{name: 910a, regionid: 910, hostname: derp.office.example.org}]
"""


def test_it_is_proved_registered_and_watched_and_nobody_logs_in(desk: Desk, tmp_path: Path) -> None:
    settled(desk)
    desk.edit("hk1", managed=False)
    desk.stage.run_in("hk1", ["systemctl", "stop", "ssh.socket", "ssh.service"], check=False)

    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert [event["host"] for event in ran.of("not_managed")] == ["hk1"]
    assert (ran.proof("hk1")["ok"], ran.of("plan", "hk1")) == (True, [])
    assert desk.invoke("check", "--host", "hk1").code == 0

    metrics, page = tmp_path / "derpfleet.prom", tmp_path / "status.html"
    seen = desk.invoke("status", "--host", "hk1", "--textfile", str(metrics), "--html", str(page))
    assert seen.code == 0, seen.why()
    [row] = seen.of("status")
    assert (row["flavour"], row["trouble"], bool(row["since"])) == ("not managed", None, True)
    assert 'derpfleet_proved{host="hk1",region="hk"} 1' in metrics.read_text()
    assert 'class="days"' in page.read_text()

    [told] = desk.invoke("history", "--host", "hk1").of("proofs")
    assert (told["proofs"] >= 3, told["broken"]) == (True, 0)
    for words in (("logs",), ("rollback",), ("uninstall",)):
        refused = desk.invoke(*words, "--host", "hk1")
        assert (refused.code, refused.failure()["host"]) == (4, "hk1")
    alone = desk.invoke("withdraw", "--host", "hk1")
    assert (alone.code, "only relay" in alone.failure()["what"]) == (1, True)


def test_a_map_file_gets_its_region_and_keeps_those_of_others(desk: Desk) -> None:
    path = desk.stage.site_file.with_name("derp.yaml")
    path.write_text(THEIRS)
    site = yaml.safe_load(desk.stage.site_file.read_text())
    site["headscale"] = {"url": site["headscale"]["url"], "map_file": "derp.yaml"}
    site["hosts"]["hk1"]["managed"] = False
    desk.stage.site_file.write_text(yaml.safe_dump(site, sort_keys=False))

    assert desk.invoke("check", "--host", "hk1").code == 10
    assert path.read_text() == THEIRS
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert path.read_text().startswith(THEIRS)
    assert parse_map(path.read_text()).keys() == {901, 910}
    assert desk.invoke("check", "--host", "hk1").code == 0
