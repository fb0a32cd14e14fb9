"""A real headscale, on loopback.

It loads our map, by a restart or by itself, and treats other files as our reader says.
"""

import hashlib
import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from artefacts.go import build
from control.headscale.config import parse_config
from control.headscale.reader import BadMap, parse_map
from control.headscale.transaction import resources
from engine.facts import FileFact, Output
from engine.health import Http
from inventory.model import Headscale, Host, Region, Site
from inventory.official import Official
from lab.programs import TAILNET
from tests.support.facts import DEBIAN_12
from tests.support.official import pinned

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

CACHE = Path(__file__).parents[2] / ".cache"
SAMPLES = Path(__file__).parent / "headscale"
OTHERS = (SAMPLES / "derp.yaml").read_text()


@pytest.fixture(scope="session")
def program():
    return build(TAILNET, cache=CACHE, progress=lambda text: None) / "headscale"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Running:
    """headscale in a folder, with the sample configuration moved there.

    `facts` are those that an agent would report.
    """

    def __init__(self, program, folder, *, change=lambda config: config, map_text=OTHERS):
        self.program, self.folder = program, folder
        self.config, self.map = folder / "config.yaml", folder / "derp.yaml"
        text = (SAMPLES / "config.yaml").read_text()
        for name in ("8080", "9090", "50443"):
            text = text.replace(f"127.0.0.1:{name}", f"127.0.0.1:{free_port()}")
        text = re.sub(r"/var/(lib|run)/headscale", str(folder), text)
        text = text.replace("    - https://controlplane.tailscale.com/derpmap/default\n", "").replace(
            "  urls:\n", "  urls: []\n"
        )
        self.config.write_text(
            change(text.replace("disable_check_updates: false", "disable_check_updates: true"))
        )
        if map_text is not None:
            self.map.write_text(map_text)
        self.site = Site(
            path=str(folder / "site.yml"),
            known_hosts="/dev/null",
            hosts={name: host(id, name) for id, name in ((900, "hk"), (901, "sg"))},
            headscale=Headscale(
                url="https://headscale.example.org", config=str(self.config), derp_map=str(self.map)
            ),
        )
        self.process = None

    def facts(self):
        version = subprocess.run([self.program, "version"], capture_output=True, text=True, check=True).stdout
        there = [path for path in (self.config, self.map) if path.exists()]
        return replace(
            DEBIAN_12,
            files={
                str(path): FileFact(
                    content=path.read_text(),
                    sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                    mode="0600",
                    owner="root",
                    group="root",
                )
                for path in there
            },
            commands={
                "headscale-version": Output(status=0, stdout=version, stderr=""),
                "headscale-unit": Output(
                    status=0, stdout="LoadState=loaded\nUnitFileState=enabled\nCanReload=yes\n", stderr=""
                ),
            },
        )

    def write(self, *names, withdrawn=()):
        """Write the files of the resources as the agent does, and return the service."""
        hosts = self.site.hosts
        *files, service = resources(
            self.site, self.facts(), [hosts[name] for name in names], [hosts[name] for name in withdrawn]
        )
        for file in files:
            beside = Path(file.path + ".new")
            beside.write_bytes(file.content)
            beside.rename(file.path)
        return service

    def start(self):
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "-c", self.config, "serve"], cwd=self.folder, stdout=log, stderr=log
            )

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def await_health(self, service):
        """Wait until every condition holds, and return the seconds that this took."""
        began = time.monotonic()
        while (
            left := [condition.url for condition in service.healthy if not holds(condition)]
        ) and time.monotonic() - began < service.timeout_s:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)
        assert not left, (self.folder / "log").read_text()
        return time.monotonic() - began

    def refuses_to_start(self, map_text):
        """Return the log when headscale does not start; "" when it does."""
        self.map.write_text(map_text)
        health = Http(url=f"http://{parse_config(self.config.read_text()).listen}/health")
        self.start()
        deadline = time.monotonic() + 20
        while (done := self.process.poll()) is None and not holds(health) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.stop()
        return (self.folder / "log").read_text() if done else ""


def host(id, name):
    return Host(
        name=name,
        domain=f"{name}1.example.com",
        region=Region(id=id, code=name, name=name),
        ipv4=f"198.51.100.{id - 800}",
    )


def get(url, accept="*/*"):
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=5) as answer:
        return answer.status, answer.read().decode()


def holds(condition):
    try:
        status, body = get(condition.url, condition.accept)
    except (OSError, urllib.error.HTTPError):
        return False
    return status == condition.status and all(text in body for text in condition.contains)


def served(service):
    return json.loads(get(service.healthy[-1].url, "application/json")[1])["regions"]


@pytest.fixture
def run(program, tmp_path):
    started = []

    def make(**options):
        started.append(Running(program, tmp_path, **options))
        return started[-1]

    yield make
    for running in started:
        running.stop()


def test_a_restart_serves_our_regions_beside_those_of_others(run):
    headscale = run()
    service = headscale.write("hk", "sg")
    assert len(service.restart_on) == 2
    headscale.start()
    headscale.await_health(service)
    regions = served(service)
    assert {int(id) for id in regions} == {900, 901, 910}
    assert regions["900"]["nodes"] == [
        {"name": "900a", "hostname": "hk1.example.com", "derp_port": 443, "stun_port": 3478}
    ]
    assert regions["910"]["region_name"] == "The office"

    service = headscale.write("sg", withdrawn=["hk"])
    headscale.stop()
    headscale.start()
    headscale.await_health(service)
    assert {int(id) for id in served(service)} == {901, 910}


def test_official_regions_are_served_with_ours_and_go_when_they_are_no_longer_chosen(run):
    headscale = run(map_text=OTHERS.replace("  1: null", "  17: null"))
    for taken in ((4, 7), (7,), ()):
        choice = Official.model_validate(pinned(*taken))
        headscale.site = headscale.site.model_copy(update={"official": choice})
        service = headscale.write("hk")
        headscale.stop()
        headscale.start()
        headscale.await_health(service)
        assert {int(id) for id in served(service)} == {*taken, 900, 910}
        if 4 in taken:
            assert [node["hostname"] for node in served(service)["4"]["nodes"]] == ["derp4.tailscale.com"]


def ticking(config):
    return config.replace("update_frequency: 3h", "update_frequency: 2s")


def test_a_region_arrives_by_itself_when_the_map_is_read_often(run):
    headscale = run(change=ticking)
    service = headscale.write("hk")
    headscale.start()
    headscale.await_health(service)

    service = headscale.write("hk", "sg")
    assert (len(service.restart_on), len(service.reload_on)) == (1, 1)
    assert headscale.await_health(service) < 10
    assert {int(id) for id in served(service)} == {900, 901, 910}


def test_a_headscale_that_had_no_region_comes_up_with_ours(run):
    headscale = run(map_text=None)
    assert "requires at least one entry" in headscale.refuses_to_start("")
    headscale.map.unlink()
    service = headscale.write("hk")
    headscale.start()
    headscale.await_health(service)
    assert list(served(service)) == ["900"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  910:", "  '910':", "cannot unmarshal"),
        ("regions:", "Regions:", "requires at least one entry"),
        ("regionid: 910", "regionId: 910", ""),  # taken, and the region has no id
        ("hostname:", "HostName:", ""),
        ("derpport: 0", "derpport: '443'", "cannot unmarshal"),
        ("derpport: 0", "derpprt: 443", ""),
    ],
)
def test_headscale_skips_or_rejects_the_lines_that_we_refuse(run, old, new, words):
    assert old in OTHERS
    headscale = run(
        change=lambda config: config.replace(
            "paths: []", f"paths: [{Path(re.search(r'private_key_path: (.*)/noise', config)[1])}/derp.yaml]"
        )
    )
    with pytest.raises(BadMap):
        parse_map(OTHERS.replace(old, new, 1))
    said = headscale.refuses_to_start(OTHERS.replace(old, new, 1))
    assert words in said
    assert bool(said) == bool(words)
