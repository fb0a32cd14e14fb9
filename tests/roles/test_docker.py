"""The key and the source that make apt take Docker's own packages, as gpg and apt read them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from engine.facts import FileFact
from engine.resource import Package, Service
from inventory.model import Host
from roles import docker, packages
from tests.roles.cases import CHECKOUT, FOLDER
from tests.support.facts import DEBIAN_12

FINGERPRINT = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"  # Docker Release (CE deb)


def resources(case: str) -> dict[str, dict[str, object]]:
    return {r["id"]: r for r in json.loads((FOLDER / case / "plan.json").read_text())["resources"]}


def test_the_key_is_dockers(tmp_path: Path) -> None:
    argv = [
        "gpg", "--homedir", str(tmp_path), "--batch", "--with-colons", "--show-keys",
        str(CHECKOUT / "files" / "docker.asc"),
    ]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    keys = [line.split(":") for line in out.splitlines()]
    assert next(parts[9] for parts in keys if parts[0] == "fpr") == FINGERPRINT
    assert [parts[9] for parts in keys if parts[0] == "uid"] == [
        "Docker Release (CE deb) <docker@docker.com>"
    ]


def test_apt_reads_the_source(tmp_path: Path) -> None:
    lines = resources("no-front-docker-self-signed")["file:/etc/apt/sources.list.d/derpfleet-docker.sources"][
        "content"
    ]
    assert isinstance(lines, list)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "x.sources").write_text("\n".join(lines) + "\n")
    places = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": str(tmp_path / "parts"),
        "Dir::State::Lists": str(tmp_path),
    }
    options = [word for place in places.items() for word in ("-o", "=".join(place))]
    done = subprocess.run(
        ["apt-get", "update", "--print-uris", *options], capture_output=True, text=True, check=True
    )
    assert (
        done.stdout.split()[0] == "'https://mirrors.aliyun.com/docker-ce/linux/ubuntu/dists/noble/InRelease'"
    )
    assert "Signed-By: /etc/apt/keyrings/derpfleet-docker.asc" in lines


def test_other_settings_of_daemon_json_stay() -> None:
    file = resources("no-front-docker-self-signed")["file:/etc/docker/daemon.json"]
    content = file["content"]
    assert isinstance(content, list)
    assert file["mode"] == "0600"  # as it was: it may hold a proxy's password
    assert json.loads("\n".join(content)) == {
        "log-driver": "local",
        "registry-mirrors": ["https://mirror.example.org", "https://old.example.org"],
    }


@pytest.mark.parametrize(
    ("path", "remedy"),
    [("/snap/bin/docker", "snap remove docker"), ("/usr/bin/docker", "dpkg -S /usr/bin/docker")],
)
def test_a_docker_without_its_unit_is_refused_with_what_to_do(path: str, remedy: str) -> None:
    host = Host(
        name="hk1", domain="hk1.example.org", region={"id": 901, "code": "hk", "name": "HK"}, flavour="docker"
    )
    (sentence,) = docker.refusals(host, replace(DEBIAN_12, tools={"docker": path}))
    assert sentence.startswith(f"{path} on hk1 comes without a docker.service, ")
    assert remedy in sentence
    unit = FileFact(content="", sha256="", mode="0644", owner="root", group="root")
    assert (
        docker.refusals(
            host,
            replace(DEBIAN_12, tools={"docker": path}, files={"/etc/systemd/system/docker.service": unit}),
        )
        == []
    )
    assert (
        docker.refusals(
            host,
            replace(DEBIAN_12, tools={"docker": path}, files={"/var/lib/dpkg/info/docker.io.list": unit}),
        )
        == []
    )
    assert docker.refusals(host, DEBIAN_12) == []


@pytest.mark.parametrize(
    ("os_id", "version", "creates"),
    [
        ("debian", "12", "no package"),
        ("debian", "13", None),
        ("debian", "", "/usr/bin/docker"),  # testing says no release
        ("ubuntu", "24.04", "/usr/bin/docker"),
        ("kali", "2026.1", "/usr/bin/docker"),
        ("fedora", "42", "no package"),
    ],
)
def test_the_client_is_a_package_of_its_own_where_the_engine_does_not_bring_it(
    os_id: str, version: str, creates: str | None
) -> None:
    host = Host(
        name="hk1", domain="hk1.example.org", region={"id": 901, "code": "hk", "name": "HK"}, flavour="docker"
    )
    facts = replace(DEBIAN_12, os_id=os_id, os_version=version, os_like=("debian",))
    found = {one.package: one for one in docker.resources(host, facts) if isinstance(one, Package)}
    client = found.get("docker-cli")
    assert (client.creates if client else "no package") == creates
    if client and client.creates:  # only then the host can tell
        assert "package:docker.io" in client.needs
        assert "docker-cli" not in packages.names([*found.values()])
    [service] = [one for one in docker.resources(host, facts) if isinstance(one, Service)]
    assert {package.id for package in found.values()} <= {*service.needs}
