"""The plan's own source of packages: only it is used, and nothing of it stays on the host."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from engine.package_source import PackageSource, sourced
from engine.plan import Mode
from engine.resource import File, Package
from tests.agent.driver import Agent, OnStage, failure

MIRROR = PackageSource(origin="packages.mirror http://mirror", sources="deb http://mirror bookworm main\n")
LISTS = "/var/cache/derpfleet/sources.list.d/*"


def archive(*names: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return made.getvalue()


def from_controller(*names: str) -> PackageSource:
    sources = "deb [trusted=yes] file:{folder}/packages ./\n"
    return PackageSource(origin="the controller", sources=sources, archive=archive(*names))


def watch(agent: Agent) -> None:
    """Let the fake nginx keep the files that it is installed from."""
    script = "#!/bin/sh\ncp -rL /var/cache/derpfleet /var/fake/seen\n"
    path = agent.stage.root / "var/fake/payload/nginx.postinst"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)


def seen(agent: Agent) -> Path:
    return agent.stage.root / "var/fake/seen"


def test_only_the_mirror_is_used_and_the_hosts_own_sources_stay(on_stage: OnStage) -> None:
    agent = on_stage(files={"/etc/apt/sources.list": "deb http://theirs bookworm main\n"})
    watch(agent)
    ours = File(path="/etc/apt/sources.list.d/derpfleet-docker.sources", content=b"ours\n")
    before = (agent.stage.root / "etc/apt/sources.list").read_text()
    outcome = agent.run([*sourced(MIRROR, [ours, Package(package="nginx")])])
    assert outcome.ok and "package:nginx" in outcome.changed
    calls = [line for line in agent.log() if line.startswith("apt-get")]
    assert [line.split()[-1] for line in calls] == ["update", "nginx"]
    for line in calls:
        assert "Dir::Etc::sourcelist=/dev/null" in line
        assert "Dir::Etc::sourceparts=/var/cache/derpfleet/sources.list.d" in line
        assert "Dir::State::lists=/var/cache/derpfleet/lists" in line
    parts = seen(agent) / "sources.list.d"
    assert (parts / "derpfleet.list").read_text() == MIRROR.sources
    assert (parts / "derpfleet-docker.sources").read_text() == "ours\n"
    assert not (agent.stage.root / "var/cache/derpfleet").exists()
    assert (agent.stage.root / "etc/apt/sources.list").read_text() == before
    agent.forget()
    assert agent.run([*sourced(MIRROR, [ours, Package(package="nginx")])]).changed == []
    assert agent.log() == []


def test_packages_of_the_controller_are_unpacked_and_removed(on_stage: OnStage) -> None:
    agent = on_stage()
    watch(agent)
    wanted = sourced(from_controller("Packages", "nginx.deb"), [Package(package="nginx")])
    assert agent.run(wanted).changed == ["package:nginx"]
    assert sorted(path.name for path in (seen(agent) / "packages").iterdir()) == ["Packages", "nginx.deb"]
    text = (seen(agent) / "sources.list.d/derpfleet.list").read_text()
    assert text == "deb [trusted=yes] file:/var/cache/derpfleet/packages ./\n"
    assert not (agent.stage.root / "var/cache/derpfleet").exists()
    assert list((agent.stage.root / "var/lib/derpfleet/incoming").iterdir()) == []


@pytest.mark.parametrize(("mode", "there"), [("check", False), ("apply", True)])
def test_packages_are_sent_only_to_be_installed(on_stage: OnStage, mode: Mode, there: bool) -> None:
    agent, wanted = on_stage(), list[list[str]]()
    if there:
        assert agent.run([Package(package="nginx")]).ok
    resources = sourced(from_controller("Packages"), [Package(package="nginx")])
    agent.run(resources, mode=mode, on_event=lambda one: wanted.append(one.get("blobs", [])))
    assert [blobs for blobs in wanted if blobs] == []


@pytest.mark.parametrize(
    ("verb", "words", "what"),
    [
        ("update", "The following signatures were invalid: BADSIG 0E98404D", "other than what the"),
        ("update", "The repository 'http://mirror' is not signed.", "other than what the"),
        ("install", "E: Failed to fetch x.deb  Hash Sum mismatch", "other than what the"),
        ("update", "Could not connect to mirror:80", "apt-get --quiet --quiet --assume-yes ended"),
    ],
)
def test_a_mirror_that_lies_is_named(on_stage: OnStage, verb: str, words: str, what: str) -> None:
    agent = on_stage(files={f"/var/fake/{verb}.fails": words})
    subject, said, why = failure(agent.run(sourced(MIRROR, [Package(package="nginx")])))
    assert subject == "package:nginx"
    assert said.startswith(f"packages.mirror http://mirror: {what}")
    assert words in why
    assert not (agent.stage.root / "var/cache/derpfleet").exists()


def test_what_a_killed_run_left_is_removed(on_stage: OnStage) -> None:
    agent = on_stage()
    left = agent.stage.root / "var/cache/derpfleet/packages"
    left.mkdir(parents=True)
    agent.run([Package(package="nginx")])
    assert not left.parent.exists()


def test_an_archive_that_would_write_elsewhere_is_refused(on_stage: OnStage) -> None:
    wanted = sourced(from_controller("../x"), [Package(package="nginx")])
    _, what, _ = failure(on_stage().run(wanted))
    assert what == "the controller: an archive that would write elsewhere"
