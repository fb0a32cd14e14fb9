"""headscale's map as a file of the controller: our regions are merged, everything else stays."""

from __future__ import annotations

import io
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from control import servers
from control.headscale.facts import HeadscaleRefused
from control.headscale.map_file import MapFileServer
from control.headscale.reader import parse_map
from control.served import Unknown
from engine.report import Report
from fleet.shared import pins
from fleet.shared.control_server import FleetReach, control_server
from fleet.shared.errors import CannotRead, CannotWrite
from fleet.shared.fleet import Fleet
from inventory.model import Certificate
from inventory.official import Official
from tests.control.headscale_host import HK1, SITE, STRANGERS, site_of
from tests.support.official import pinned

THEIRS = """\
# the maps of our offices; ask Ops before you edit
regions:
  910:   # the office
    regionid: 910
    regioncode: "office"
    regionname: Office
    nodes: [{name: 910a, regionid: 910, hostname: derp.office.example.org}]
"""


class Desk:
    """A site whose headscale has a map file, and what its control server shows."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
        self.path = folder / "derp.yaml"
        if text is not None:
            self.path.write_text(text)
        self.shown = io.StringIO()
        site = site_of(f"{SITE}  map_file: {self.path}\n")
        self.hosts = site.hosts
        self.fleet = Fleet(site, Report(console=Console(file=self.shown, width=400), diffs=True))
        monkeypatch.setattr(pins, "known", lambda *_: {})
        self.server = control_server(self.fleet)

    @property
    def text(self) -> str:
        return self.path.read_text()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch, THEIRS)


def test_a_headscale_with_a_map_file_has_no_host(desk: Desk) -> None:
    assert isinstance(desk.server, MapFileServer)
    assert desk.fleet.control_logins() == []
    assert desk.fleet.site.control.verify_url == "https://headscale.example.org/verify"


def test_a_relay_is_merged_and_the_text_of_others_stays(desk: Desk) -> None:
    hk1 = desk.hosts["hk1"]
    assert desk.server.register([hk1], all_proved=[hk1]) is None
    assert desk.text.startswith(THEIRS)
    assert parse_map(desk.text).keys() == {900, 910}
    assert "+  900:" in desk.shown.getvalue()
    assert f"{desk.path} is changed; deliver it" in desk.shown.getvalue()
    before = desk.text
    desk.server.register([hk1], all_proved=[hk1])
    assert desk.text == before
    assert f"map-file  ok           {desk.path} has hk (900)" in desk.shown.getvalue()


def test_a_check_shows_the_diff_and_writes_nothing(desk: Desk) -> None:
    assert desk.server.check(list(desk.hosts.values())) == 1
    assert desk.text == THEIRS
    assert f"would change file:{desk.path}" in desk.shown.getvalue()
    assert "+  900:" in desk.shown.getvalue()
    desk.path.write_text(THEIRS + HK1)
    assert desk.server.check([]) == 0


def test_a_check_counts_the_region_of_a_certificate_that_is_not_there_yet(desk: Desk) -> None:
    signed = desk.hosts["hk1"].model_copy(update={"certificate": Certificate(source="self-signed")})
    assert desk.server.check([signed]) == 1
    assert "would change region 900, once the certificate of hk1 is there" in desk.shown.getvalue()


def test_a_file_that_is_not_there_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path, monkeypatch, None)
    desk.server.register([desk.hosts["hk1"]], all_proved=[])
    assert parse_map(desk.text).keys() == {900}


def test_a_link_stays_one_and_a_mode_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path, monkeypatch, THEIRS)
    real = tmp_path / "real.yaml"
    desk.path.rename(real)
    real.chmod(0o640)
    desk.path.symlink_to(real)
    desk.server.register([desk.hosts["hk1"]], all_proved=[])
    assert desk.path.is_symlink()
    assert 900 in parse_map(real.read_text())
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["derp.yaml", "real.yaml"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (THEIRS.replace("910", "900"), "is 'office' at derp.office.example.org, which is not hk1"),
        (THEIRS.replace('"office"', "hk"), "The code hk of hk1 is taken by region 910"),
        (THEIRS.replace("derp.office", "hk1"), "hk1.example.org"),
        ("apiVersion: v1\nkind: ConfigMap\n", "headscale skips 'apiVersion', which it does not know"),
        ("regions: {\n", "line "),
        (HK1.replace("  900", "regions:\n  900").replace("]", ", {name: x, regionid: 900, hostname: x.y}]"),
         "has nodes of others, too: x at x.y"),
    ],
)  # fmt: skip
def test_what_is_in_the_way_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    desk = Desk(tmp_path, monkeypatch, text)
    hk1 = desk.hosts["hk1"]
    if why == "hk1.example.org":  # a former id of the host itself, which stays until a withdrawal
        desk.server.register([hk1], all_proved=[])
        assert parse_map(desk.text).keys() == {900, 910}
        return
    with pytest.raises(HeadscaleRefused, match="the map file was not changed") as refused:
        desk.server.register([hk1], all_proved=[])
    assert why in refused.value.why
    assert desk.text == text


def test_a_withdrawn_relay_leaves_with_its_former_regions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = HK1.replace("900", "955").replace("hk\n", "old\n")
    desk = Desk(tmp_path, monkeypatch, THEIRS + HK1 + former)
    hk1 = desk.hosts["hk1"]
    with desk.server.withdrawal(hk1) as leaving:
        assert leaving is not None
        assert (leaving.others, leaving.nodes_at_home()) == ([], None)
        leaving.refuse_removal()
    desk.server.take_out(hk1)
    assert desk.text == THEIRS
    with desk.server.withdrawal(hk1) as leaving:
        assert leaving is None


def test_a_region_that_may_not_leave_is_refused_before_its_relay_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = HK1.replace("]", ", {name: x, regionid: 900, hostname: x.y}]")
    desk = Desk(tmp_path, monkeypatch, f"regions:\n{shared}")
    with desk.server.withdrawal(desk.hosts["hk1"]) as leaving:
        assert leaving is not None
        with pytest.raises(HeadscaleRefused) as refused:
            leaving.refuse_removal()
    assert "has nodes of others, too: x at x.y" in refused.value.why


def test_a_look_names_the_hosts_in_the_file_and_knows_no_served_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text, in_map in ((THEIRS + HK1, {"hk1"}), (THEIRS + STRANGERS, set[str]())):
        desk = Desk(tmp_path, monkeypatch, text)
        look = desk.server.look()
        assert look is not None
        assert (look.program, look.in_map) == (f"the map file {desk.path}", in_map)
        assert isinstance(look.served, Unknown)


def test_a_file_that_cannot_be_read_or_written_is_named(desk: Desk, tmp_path: Path) -> None:
    desk.path.write_bytes(b"\xff\xfe")
    with pytest.raises(CannotRead, match="cannot be read"):
        desk.server.look()
    reach = FleetReach(desk.fleet)
    with pytest.raises(CannotWrite, match="cannot be written") as error:
        reach.rewrite_file(str(tmp_path / "nowhere" / "derp.yaml"), lambda text: text + "x")
    assert "No such file or directory" in error.value.why


def test_two_commands_lose_no_change_of_each_other(desk: Desk) -> None:
    reach = FleetReach(desk.fleet)

    def add(line: str) -> None:
        for _ in range(20):
            reach.rewrite_file(str(desk.path), lambda text: f"{text}# {line}\n")

    both = [threading.Thread(target=add, args=(line,)) for line in ("one", "two")]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert desk.text.count("# one\n") == desk.text.count("# two\n") == 20


def test_a_former_id_is_named(desk: Desk) -> None:
    server = control_server(desk.fleet)
    server.register([desk.hosts["hk1"]], all_proved=[])
    desk.path.write_text(desk.text.replace("900", "905"))
    server.register([desk.hosts["hk1"]], all_proved=[])
    assert parse_map(desk.text).keys() == {900, 905, 910}
    assert "hk1 is in the map as region 905, too" in desk.shown.getvalue()


def test_machines_get_the_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "derp.yaml"
    path.write_text(THEIRS)
    site = site_of(f"{SITE}  map_file: {path}\n")
    reach: Any = FleetReach(Fleet(site, Report(json_lines=True)))
    servers.chosen(site, reach).register([site.hosts["hk1"]], all_proved=[])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    [event] = [event for event in events if event["event"] == "map_file"]
    assert event["path"] == str(path)
    assert "+  900:" in event["diff"]
    assert os.access(path, os.R_OK)


def test_official_regions_come_into_the_file_and_go_when_they_are_no_longer_chosen(desk: Desk) -> None:
    for taken in ((4, 7), (7,), ()):
        choice = Official.model_validate(pinned(*taken))
        desk.fleet.site = desk.fleet.site.model_copy(update={"official": choice})
        server = control_server(desk.fleet)
        server.register([desk.hosts["hk1"]], all_proved=[])
        assert parse_map(desk.text).keys() == {*taken, 900, 910}
    choice = Official.model_validate(pinned(4))
    desk.fleet.site = desk.fleet.site.model_copy(update={"official": choice})
    desk.path.write_text(THEIRS.replace("910", "4"))
    with pytest.raises(HeadscaleRefused) as error:
        control_server(desk.fleet).register([desk.hosts["hk1"]], all_proved=[])
    assert "official region 4 (fra) is in the way of region 4 ('office'" in error.value.why
