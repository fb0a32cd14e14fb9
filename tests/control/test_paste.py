"""A site without a control server: nothing is asked or changed, and a person reads what to do."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from control import servers
from control.paste import NEVER_ASKED, PasteServer
from engine.report import Report
from inventory.control_servers import Derpmap
from inventory.model import Site
from tests.control.test_headscale import site_of


class Paster:
    """A paste server, with the texts and events that it shows.

    It has no host: its reach has no `session` and no `step`.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.site: Site = site_of().model_copy(update={"headscale": None, **changes})
        self.shown = io.StringIO()
        self.events: list[dict[str, Any]] = []
        report = Report(console=Console(file=self.shown, width=400))
        monkeypatch.setattr(report, "emit", lambda **event: self.events.append(event))
        reach: Any = SimpleNamespace(report=report, pins=lambda _: {})
        self.server = servers.chosen(self.site, reach)


@pytest.fixture
def paster(monkeypatch: pytest.MonkeyPatch) -> Paster:
    return Paster(monkeypatch)


def test_a_site_without_headscale_gets_its_map_by_hand(paster: Paster) -> None:
    assert isinstance(paster.server, PasteServer)


def test_its_map_is_never_known(paster: Paster) -> None:
    assert paster.server.served() == NEVER_ASKED
    assert paster.server.unasked("compared later") == NEVER_ASKED
    assert NEVER_ASKED.why == "the site has no headscale host"


def test_a_check_finds_nothing_to_change(paster: Paster) -> None:
    assert paster.server.check(list(paster.site.hosts.values())) == 0
    paster.server.not_proved(paster.site.hosts["hk1"])
    assert (paster.shown.getvalue(), paster.events) == ("", [])


def test_every_proved_relay_is_to_be_pasted(paster: Paster) -> None:
    hk1, sg1 = (paster.site.hosts[name] for name in ("hk1", "sg1"))
    assert paster.server.register([sg1], all_proved=[hk1, sg1]) is None
    [event] = paster.events
    assert (event["event"], sorted(event["derpmap"]["Regions"])) == ("derpmap", ["900", "901"])
    assert "This site has no headscale host" in paster.shown.getvalue()
    paster.server.register([sg1], all_proved=[sg1])
    assert sorted(paster.events[1]["derpmap"]["Regions"]) == ["901"]


@pytest.mark.parametrize(("only_ours", "others"), [(False, None), (True, ["sg1"])])
def test_another_relay_is_needed_where_nodes_have_no_other(
    monkeypatch: pytest.MonkeyPatch, only_ours: bool, others: list[str] | None
) -> None:
    paster = Paster(monkeypatch, derpmap=Derpmap(omit_default_regions=only_ours))
    with paster.server.withdrawal(paster.site.hosts["hk1"]) as leaving:
        assert leaving is not None
        assert (leaving.others and [host.name for host in leaving.others]) == others
        assert leaving.served == NEVER_ASKED
        assert leaving.nodes_at_home() is None


def test_the_region_to_take_out_is_named(paster: Paster) -> None:
    paster.server.take_out(paster.site.hosts["hk1"])
    assert paster.shown.getvalue() == "Take region 900 (hk) out of the map of your control server now.\n"
