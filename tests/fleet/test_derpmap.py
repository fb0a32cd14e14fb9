"""`invoke derpmap --push`: the proved relays enter the map, and the others are named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.served import Map
from engine.report import Report
from fleet import derpmap as verb
from fleet.shared.control_server import control_server
from fleet.shared.fleet import Fleet
from probe.derpmap import check_map
from probe.proof import Broken
from probe.target import Target
from tests.control.tailscale.policies import POLICY, site
from tests.support.tailscale_api import TAILNET, WRITES, Tailnet, tailnet


@pytest.fixture
def fleet_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Fleet, Tailnet]]:
    """Return a fleet on a tailnet, of which hk1 is proved."""
    with tailnet(tmp_path, POLICY) as net:
        monkeypatch.setenv("TS_KEY", WRITES)
        monkeypatch.setenv("SSL_CERT_FILE", str(net.ca))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(verb, "was_proved", lambda _, host: host.name == "hk1")
        made = site(api=net.url, tailnet=TAILNET).model_copy(update={"path": str(tmp_path / "site.yml")})
        yield Fleet(made, Report(json_lines=True)), net


def test_it(fleet_on: tuple[Fleet, Tailnet], capsys: pytest.CaptureFixture[str]) -> None:
    fleet, net = fleet_on
    assert verb.push(fleet) == 0
    assert '"900"' in net.text and '"901"' not in net.text
    [event] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (event["event"], event["status"], event["changes"]) == ("policy", "changed", ["region 900 added"])
    served = control_server(fleet).served()
    assert isinstance(served, Map)
    hk1, sg1 = (Target.from_host(host, fleet.site, deploy=str) for host in fleet.site.hosts.values())
    assert check_map(hk1, served, port_80=None).detail.startswith("region 900: hostname")
    with pytest.raises(Broken, match=r"the derpMap in the policy of example\.com has no region 901"):
        check_map(sg1, served, port_80=None)


def test_no_relay_is_proved(
    fleet_on: tuple[Fleet, Tailnet], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, net = fleet_on
    monkeypatch.setattr(verb, "was_proved", lambda *_: False)
    assert verb.push(fleet) == 1
    assert net.calls == []


def test_the_map_is_printed_all_the_same(
    fleet_on: tuple[Fleet, Tailnet], capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, net = fleet_on
    verb.derpmap(fleet)
    printed = capsys.readouterr()
    assert sorted(json.loads(printed.out)["Regions"]) == ["900", "901"]
    assert printed.err.startswith("the policy of example.com gets these regions from `invoke deploy`.")
    assert net.calls == []
