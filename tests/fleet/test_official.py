"""`invoke official`: Tailscale's map from a stand-in over https, measured by STUN on loopback."""

from __future__ import annotations

import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import inventory
import operator_tasks
from engine.facts import Ask, Output
from engine.login import Unreachable
from engine.report import Report
from fleet.official import ADMITS, NoSuchRegion, latency, official
from fleet.official.source import NoOfficialMap, read
from fleet.shared.fleet import Fleet
from inventory.official import file_of
from relay.core.stun import pack_response, parse_request
from relay.core.wire import ProtocolError
from tests.fleet.answering import AnsweringHost
from tests.fleet.test_events import EVENTS, wrong
from tests.probe.authority import Authority
from tests.support.official import TAILSCALES, region
from tests.support.site_text import GOOD, SECOND


class Answers(BaseHTTPRequestHandler):
    """Answers each path with a status, headers and a body."""

    def __init__(self, pages: dict[str, tuple[int, dict[str, str], bytes]], *words: Any) -> None:
        self.pages = pages
        super().__init__(*words)

    def do_GET(self) -> None:
        status, headers, body = self.pages[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stand in for Tailscale's control server. Yield its URL and its pages."""
    pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
    (tmp_path / "authority").mkdir()
    authority = Authority(tmp_path / "authority")
    issued = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.chain, issued.key)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    monkeypatch.delenv("DERPFLEET_OFFLINE", raising=False)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Answers, pages)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}", pages
        server.shutdown()


@pytest.fixture
def stun() -> Iterator[Callable[[float], int]]:
    """`stun(delay_s)` starts a server on loopback that answers after that time. Its port."""
    sockets: list[socket.socket] = []

    def serve(own: socket.socket, delay_s: float) -> None:
        while True:
            try:
                data, (address, port) = own.recvfrom(2048)
                txid = parse_request(data)
            except ProtocolError:
                continue
            except OSError:
                return
            time.sleep(delay_s)
            own.sendto(pack_response(txid, socket.inet_aton(address), port), (address, port))

    def start(delay_s: float) -> int:
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.bind(("127.0.0.1", 0))
        sockets.append(own)
        threading.Thread(target=serve, args=(own, delay_s), daemon=True).start()
        return int(own.getsockname()[1])

    yield start
    for own in sockets:
        own.close()


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def fleet(tmp_path: Path, shown: io.StringIO) -> Fleet:
    site = tmp_path / "site.yml"
    site.write_text(GOOD + SECOND + "headscale: {url: 'https://headscale.example.org'}\n")
    return Fleet(inventory.load(site), Report(console=Console(file=shown, width=200)))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure nothing."""
    monkeypatch.setattr(latency, "_run", lambda _: "{}")


def page(map: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps(map).encode()


def test_regions_are_shown_by_distance_from_here_and_from_hosts(
    fleet: Fleet, control: tuple[str, dict[str, Any]], stun: Callable[[float], int], shown: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    url, pages = control
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        near, far = stun(0.0), stun(0.05)
        parts = [("far", far), ("near", near), ("dead", silent.getsockname()[1])]
        pages["/map"] = page({
            "Regions": {
                str(id): region(id, code, f"{code}.example", ipv4="127.0.0.1", stun=port)
                for id, (code, port) in enumerate(parts, 1)
            }
        })
        asked: list[Ask] = []

        def session(_: Fleet, login: Any, ask: Ask) -> AnsweringHost:
            asked.append(ask)
            if login.name == "sg1":
                raise Unreachable("cannot connect", host="sg1")
            return AnsweringHost(first={"times": '{"1": 7.5, "2": null, "9": "x"}'}, later={})

        monkeypatch.setattr(Fleet, "session_for_reading", session)
        assert official(fleet, fleet.hosts(()), take=(), source=f"{url}/map") == 3
    assert len(asked) == 2 and all(list(ask.commands) == ["times"] for ask in asked)
    rows = [line.split() for line in shown.getvalue().splitlines() if " ms" in line or "dead" in line]
    assert [row[0] for row in rows] == ["near", "far", "dead"]
    assert rows[2][-2:] == ["-", "-"]
    assert float(rows[1][-4]) >= 50 and rows[1][-2:] == ["8", "ms"]
    assert ADMITS in shown.getvalue() and "cannot connect" in shown.getvalue()
    assert not file_of(fleet.site.path).exists()


def test_a_choice_is_pinned_beside_the_site_file(
    fleet: Fleet, control: tuple[str, dict[str, Any]], quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    url, pages = control
    pages["/map"] = page(TAILSCALES)
    fleet.report = Report(json_lines=True)
    assert official(fleet, [], take=["tok", "fra"], source=f"{url}/map") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = [line for line in lines if line["event"] == "official"]
    assert {row["code"]: row["taken"] for row in rows} == {"nyc": False, "fra": True, "tok": True}
    assert [list(wrong(row, EVENTS["official"])) for row in rows] == [[], [], []]
    found = inventory.load(fleet.site.path).official
    assert found and found.taken == (4, 7) and found.source == f"{url}/map"


def test_the_present_choice_is_shown_and_none_ends_it(
    fleet: Fleet, control: tuple[str, dict[str, Any]], quick: None, shown: io.StringIO
) -> None:
    url, pages = control
    pages["/map"] = page(TAILSCALES)
    official(fleet, [], take=["fra"], source=f"{url}/map")
    assert "fra: pinned in" in shown.getvalue() and "The next deploy" in shown.getvalue()
    again = Fleet(inventory.load(fleet.site.path), fleet.report)
    official(again, [], take=(), source=f"{url}/map")
    assert shown.getvalue().count("taken ") == 2
    official(again, [], take=["none"], source=f"{url}/map")
    found = inventory.load(fleet.site.path).official
    assert found and found.taken == ()


def test_what_cannot_be_taken_writes_nothing(fleet: Fleet, tmp_path: Path, quick: None) -> None:
    file = tmp_path / "map.json"
    more = {"8": region(8, "hk", "derp8.tailscale.com")}
    file.write_text(json.dumps({"Regions": {**TAILSCALES["Regions"], **more}}))
    with pytest.raises(NoSuchRegion, match="no official region fre; nothing was taken") as error:
        official(fleet, [], take=["tok", "fre"], source=str(file))
    assert error.value.next == "did you mean --take fra?"
    with pytest.raises(inventory.SiteError, match="a problem") as refused:
        official(fleet, [], take=["hk"], source=str(file))
    assert "hosts.hk1.region.code is hk as well" in refused.value.why
    assert refused.value.next.endswith("or take other regions: invoke official --take CODE")
    assert not file_of(fleet.site.path).exists()


def test_the_host_of_a_relay_that_somebody_else_runs_is_not_asked(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site, map = tmp_path / "site.yml", tmp_path / "map.json"
    site.write_text(GOOD + SECOND.replace("certificate: {agree_terms: true}", "managed: false"))
    map.write_text(json.dumps(TAILSCALES))
    asked: list[str] = []

    def session(_: Fleet, login: Any, __: Ask) -> AnsweringHost:
        asked.append(login.name)
        return AnsweringHost(first={"times": "{}"}, later={})

    monkeypatch.setattr(Fleet, "session_for_reading", session)
    operator_tasks.official.body(None, host=[], take=[], from_=str(map), site=str(site))  # or it raises Exit
    assert asked == ["hk1"]
    assert "skipped      managed: false" in capsys.readouterr().out


def test_a_map_that_is_none_is_refused(control: tuple[str, dict[str, Any]]) -> None:
    url, pages = control
    ours = page({"Regions": {"900": region(900, "hk", "hk1.example.org")}})
    cases = {
        "/html": ((200, {}, b"<html>"), "it is no JSON"),
        "/form": (page({"Regions": []}), "Regions"),
        "/ours": (ours, "no region below 900"),
        "/gone": ((404, {}, b""), "404"),
        "/long": ((200, {}, b" " * (5 << 20)), "more than 4 MiB"),
        "/less": ((302, {"Location": "http://127.0.0.1:9/map"}, b""), "redirects to http://127.0.0.1:9/map"),
        "/deep": ((200, {}, b"[" * 100_000), "it is no JSON"),
    }
    for path, (answer, why) in cases.items():
        pages[path] = answer
        with pytest.raises(NoOfficialMap) as error:
            read(f"{url}{path}")
        assert why in error.value.why, path
        assert "invoke official --from FILE" in error.value.next


def test_a_map_comes_by_https_or_from_a_file(
    control: tuple[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, pages = control
    pages["/map"] = page(TAILSCALES)
    assert sorted(read(f"{url}/map").regions) == [1, 4, 7]
    with pytest.raises(NoOfficialMap, match="is not fetched"):
        read(f"{url}/map".replace("https", "http"))
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    with pytest.raises(NoOfficialMap) as error:
        read(f"{url}/map")
    assert "CERTIFICATE_VERIFY_FAILED" in error.value.why
    monkeypatch.setenv("DERPFLEET_OFFLINE", "1")
    with pytest.raises(NoOfficialMap) as error:
        read(f"{url}/map")
    assert error.value.why == "DERPFLEET_OFFLINE is set"
    (tmp_path / "map.json").write_text(json.dumps(TAILSCALES))
    assert sorted(read(str(tmp_path / "map.json")).regions) == [1, 4, 7]
    with pytest.raises(NoOfficialMap, match="cannot be read"):
        read(str(tmp_path / "none.json"))


@pytest.mark.parametrize("printed", ["", "[1]", '{"x": 1.0}', "[" * 5000, '{"1": NaN, "2": 1e9, "3": true}'])
def test_a_host_that_prints_nonsense_has_measured_nothing(printed: str) -> None:
    assert latency._times(printed) == {}


def test_the_question_to_a_host_is_one_command(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words have an address where the map has one, and leave out nodes without STUN."""
    nodes = [
        {"HostName": "a.example", "IPv4": "none", "IPv6": "2001:db8::1"},
        {"HostName": "b.example", "STUNPort": -1},
        {"HostName": "c.example", "STUNPort": 3479},
    ]
    whole = inventory.derp_map.read_derp_map({"Regions": {"1": {"RegionID": 1, "Nodes": nodes}}})
    assert whole.regions[1]
    assert latency._words(1, whole.regions[1]) == ["1,2001:db8::1,3478", "1,c.example,3479"]
    many = inventory.derp_map.MapRegion.model_validate({"RegionID": 2, "Nodes": nodes[2:] * 64})
    assert len(latency._words(2, many)) == 6  # of all that a map may have they would be too long a command
    said = replace(AnsweringHost(later={}).facts, commands={"times": Output(status=1, stdout="", stderr="x")})
    assert latency._times(said.commands["times"].stdout) == {}
