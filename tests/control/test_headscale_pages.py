"""Questions to headscale and its answers. The scripts that ask run against a page on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from control.headscale.pages import _NOT_SHOWN, nodes_at_home
from control.served import Map, Served, Unknown, Unreadable
from engine.facts import Ask, Facts, Output
from engine.login import Unreachable
from engine.report import Report
from fleet.shared.control_server import control_server
from fleet.shared.fleet import Fleet
from inventory.model import Site
from tests.control.test_headscale import facts as seen
from tests.control.test_headscale import site_of

NODES = {
    "1": {"GivenName": "phone", "IsOnline": True, "Hostinfo": {"NetInfo": {"PreferredDERP": 900}}},
    "2": {"GivenName": "laptop", "IsOnline": True, "Hostinfo": {"NetInfo": {"PreferredDERP": 901}}},
    "3": {"GivenName": "asleep", "IsOnline": False, "Hostinfo": {"NetInfo": {"PreferredDERP": 900}}},
    "4": {"GivenName": "new", "IsOnline": True, "Hostinfo": None},
    "5": {"GivenName": "desk", "IsOnline": True, "Hostinfo": {"NetInfo": {"PreferredDERP": 902}}},
}


class Talk:
    """A session whose host is this machine: the commands that it is asked to run are run."""

    def __init__(self, facts: Facts) -> None:
        self.facts = replace(facts, python_executable=sys.executable)

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, ask: Ask) -> Facts:
        ran = {
            name: subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
            for name, argv in ask.commands.items()
        }
        said = {
            name: Output(status=done.returncode, stdout=done.stdout, stderr=done.stderr)
            for name, done in ran.items()
        }
        self.facts = replace(self.facts, commands={**self.facts.commands, **said})
        return self.facts


@pytest.fixture
def page() -> Iterator[Callable[[bytes], Site]]:
    """Return `page(body)`: it returns a site whose headscale answers every request with `body`."""
    servers = []

    def start(body: bytes) -> Site:
        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Page)
        servers.append(server)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        site = site_of()
        assert site.headscale is not None
        metrics = f"http://127.0.0.1:{server.server_port}"
        given = site.headscale.model_copy(update={"metrics": metrics})
        given.model_fields_set.add("metrics")
        return site.model_copy(update={"headscale": given})

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fleet_of(site: Site, monkeypatch: pytest.MonkeyPatch, session: Callable[[], Talk]) -> Fleet:
    monkeypatch.setattr(Fleet, "session_for_reading", lambda *_: session())
    return Fleet(site, Report(json_lines=True))


@pytest.mark.parametrize(
    ("regions", "homes"), [([900], ["phone"]), ([900, 902], ["desk", "phone"]), ([999], [])]
)
def test_the_nodes_that_are_online_and_at_home_there(
    page: Callable[[bytes], Site], regions: list[int], homes: list[str]
) -> None:
    site = page(json.dumps(NODES).encode())
    assert nodes_at_home(Talk(seen()), site, regions) == homes


@pytest.mark.parametrize("body", [b"<html>", b'{"1": {}}', b""])
def test_a_page_that_cannot_be_read_shows_no_homes(page: Callable[[bytes], Site], body: bytes) -> None:
    site = page(body.replace(b"{}", b'{"IsOnline": true, "Hostinfo": {"NetInfo": {"PreferredDERP": 900}}}'))
    assert nodes_at_home(Talk(seen()), site, [900]) is None


def test_a_headscale_that_has_no_such_page_is_not_asked() -> None:
    assert nodes_at_home(Talk(seen(version="v0.26.1")), site_of(), [900]) is None


def test_the_map_is_the_one_that_it_serves(
    page: Callable[[bytes], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = page(b'{"Regions": {"900": {}}}')
    assert control_server(fleet_of(site, monkeypatch, lambda: Talk(seen()))).served() == Map(
        {"Regions": {"900": {}}}
    )


def test_why_the_map_is_not_known(page: Callable[[bytes], Site], monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(site: Site, session: Callable[[], Talk]) -> Served:
        return control_server(fleet_of(site, monkeypatch, session)).served()

    def why(found: Served) -> str:
        assert isinstance(found, Unreadable)
        return found.why

    def gone() -> Talk:
        raise Unreachable("cannot connect", why="no route to host")

    site = page(b"<html>")
    assert asked(site.model_copy(update={"headscale": None}), gone) == Unknown(
        "the site has no headscale host"
    )
    assert asked(site, gone) == Unknown("headscale cannot be asked: cannot connect (no route to host)")
    assert asked(site, lambda: Talk(seen(version="v0.25.1"))) == _NOT_SHOWN
    assert why(asked(page(b'"closed"'), lambda: Talk(seen()))) == (
        'headscale does not report its map, but "closed"'
    )
    assert why(asked(site, lambda: Talk(seen()))).startswith(
        "headscale does not report its map: json.decoder.JSONDecodeError"
    )
    assert why(asked(site, lambda: Talk(seen(config=None)))).startswith(
        "there is no /etc/headscale/config.yaml"
    )
    tab = why(asked(site, lambda: Talk(seen(map="regions:\n\t900: {}\n"))))
    assert "/etc/headscale/derp.yaml" in tab and "line 2" in tab
    mistyped = why(asked(site, lambda: Talk(seen(map="regions:\n  900:\n    regionId: x\n"))))
    assert "/etc/headscale/derp.yaml" in mistyped and "line 3" in mistyped


@pytest.mark.parametrize(
    ("starts", "age_s", "lasts"), [(0, 5, True), (1, 5, True), (7, 5, False), (7, 90, True)]
)
def test_a_headscale_that_ends_again_and_again_serves_no_map(
    page: Callable[[bytes], Site], monkeypatch: pytest.MonkeyPatch, starts: int, age_s: int, lasts: bool
) -> None:
    """It answers at this moment, between two crashes (K7)."""
    unit = f"LoadState=loaded\nNRestarts={starts}\nExecMainStartTimestampMonotonic=1000000000\n"
    facts = seen(unit=unit)
    uptime = {"uptime": Output(status=0, stdout=f"{1000 + age_s}.25 9.1\n", stderr="")}
    facts = replace(facts, commands={**facts.commands, **uptime})
    site = page(b'{"Regions": {"900": {}}}')
    found = control_server(fleet_of(site, monkeypatch, lambda: Talk(facts))).served()
    if lasts:
        assert found == Map({"Regions": {"900": {}}})
    else:
        assert isinstance(found, Unreadable)
        assert found.why == "headscale was started 7 times by itself, the last time 5 s ago"
        assert "journalctl" in found.next


def test_pages_are_asked_past_a_proxy(page: Callable[[bytes], Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert nodes_at_home(Talk(seen()), page(json.dumps(NODES).encode()), [901]) == ["laptop"]
