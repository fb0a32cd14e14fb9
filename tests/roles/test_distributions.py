"""The table of distributions: which one a host has, and what follows from it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from engine.facts import Facts, Output
from engine.policy import Selinux
from inventory.model import Host
from roles import distributions, docker, selinux
from roles.certificate import acme
from roles.wiring import wire
from tests.support.facts import DEBIAN_12

HK1 = {"name": "hk1", "domain": "hk1.example.org", "region": {"id": 901, "code": "hk", "name": "HK"}}
ENFORCING = {"selinux": Output(status=0, stdout="Enforcing\n", stderr="")}


def facts(id: str, version: str, *like: str, python: tuple[int, int, int] = (3, 9, 21)) -> Facts:
    return replace(DEBIAN_12, os_id=id, os_version=version, os_like=like, python=python)


@pytest.mark.parametrize(
    ("id", "version", "like", "name"),
    [
        ("debian", "13", (), "Debian"),
        ("ubuntu", "26.04", ("debian",), "Ubuntu"),
        ("linuxmint", "22", ("ubuntu", "debian"), "Ubuntu"),
        ("raspbian", "12", ("debian",), "Debian"),
        ("rocky", "9.6", ("rhel", "centos", "fedora"), "Rocky Linux"),
        ("ol", "8.10", ("fedora",), "Oracle Linux"),
        ("rhel", "10.0", ("centos", "fedora"), "Red Hat Enterprise Linux"),
        ("fedora", "43", (), "Fedora"),
        ("amzn", "2023", ("fedora",), "Amazon Linux"),
    ],
)
def test_known_hosts(id: str, version: str, like: tuple[str, ...], name: str) -> None:
    host = facts(id, version, *like)
    assert distributions.of(host).name == name
    assert distributions.refusals("hk1", host) == []


@pytest.mark.parametrize(
    ("id", "version", "since"),
    [
        ("debian", "11", "12"),
        ("debian", "12", ""),
        ("debian", "", ""),  # the one that is not released yet
        ("ubuntu", "20.04", "22.04"),
        ("ubuntu", "22.04", ""),
        ("linuxmint", "21", ""),
        ("rocky", "8.10", ""),
    ],
)
def test_a_release_before_those_that_are_tested_is_warned_of(id: str, version: str, since: str) -> None:
    said = distributions.warnings("hk1", facts(id, version, "debian"))
    assert [f"before {since}: let the provider" in sentence for sentence in said] == [True] * bool(since)


@pytest.mark.parametrize(
    ("id", "version", "like", "why"),
    [
        ("centos", "7", ("rhel", "fedora"), "no updates since June 2024"),
        ("centos", "8", ("rhel", "fedora"), "let the provider install CentOS Stream 10 or Debian"),
        ("rocky", "11.0", ("rhel", "centos", "fedora"), "derpfleet does not know it"),
        ("amzn", "2", ("centos", "rhel", "fedora"), "let the provider install Amazon Linux 2023 or Debian"),
        ("amzn", "2", ("centos", "rhel", "fedora"), "its systemd (219), Python (3.7) and yum are older"),
        # It counts its releases in its own way.
        ("alinux", "3", ("rhel", "fedora", "centos", "anolis"), "install one of those"),
        ("alpine", "3.22", (), "install one of those"),
    ],
)
def test_others_are_refused_with_the_way_out(id: str, version: str, like: tuple[str, ...], why: str) -> None:
    [sentence] = distributions.refusals("hk1", facts(id, version, *like))
    assert sentence.startswith(f"hk1 runs {id} {version}")
    assert why in sentence


@pytest.mark.parametrize(("id", "shown"), [("arch", "arch"), ("", "an unknown system")])
def test_a_system_without_a_release_is_named(id: str, shown: str) -> None:
    [sentence] = distributions.refusals("hk1", facts(id, ""))
    assert sentence.startswith(f"hk1 runs {shown}: derpfleet knows ")


@pytest.mark.parametrize(
    ("id", "version", "python", "wanted"),
    [
        ("rocky", "8.10", (3, 6, 8), "/usr/bin/python3.11"),
        ("rocky", "9.6", (3, 9, 21), "/usr/bin/python3.11"),
        ("amzn", "2023", (3, 9, 24), "/usr/bin/python3.11"),
        ("rocky", "10.0", (3, 12, 9), "/usr/bin/python3"),  # its own
        ("debian", "11", (3, 9, 2), "/usr/bin/python3"),  # it has no other
    ],
)
def test_the_python_of_our_programs(id: str, version: str, python: tuple[int, int, int], wanted: str) -> None:
    before = facts(id, version, python=python)
    found = distributions.for_programs(before)
    assert found.python_executable == wanted
    assert distributions.for_programs(found) == found
    names = [package.package for package in distributions.python_packages(found)]
    assert names == (["python3.11"] if wanted != before.python_executable else [])


def test_release_8_gets_a_newer_nginx(tmp_path: Path) -> None:
    """By the file that `dnf module enable` writes: see tests/e2e/test_supply_rpms.py."""
    assert distributions.nginx_stream(facts("almalinux", "9.6")) == []
    [command] = distributions.nginx_stream(facts("almalinux", "8.10"))
    assert command.creates == "/etc/dnf/modules.d/nginx.module"
    there = tmp_path / "modules.d" / "nginx.module"
    argv = [str(there) if word == command.creates else word for word in command.argv]
    subprocess.run(argv, check=True, umask=0o077)
    lines = there.read_text().splitlines()
    assert lines == ["[nginx]", "name=nginx", "stream=1.24", "profiles=", "state=enabled"]
    assert there.stat().st_mode & 0o777 == 0o644


def dockers_refusals(id: str, packages: str) -> list[str]:
    host = Host(**HK1, flavour="docker", docker={"archive": "x", "packages": packages})
    return docker.refusals(host, facts(id, "9.6"))


@pytest.mark.parametrize(
    ("id", "packages"), [("rocky", "docker"), ("amzn", "distribution"), ("fedora", "distribution")]
)
def test_dockers_packages(id: str, packages: str) -> None:
    assert dockers_refusals(id, packages) == []


@pytest.mark.parametrize(
    ("id", "packages", "why"),
    [
        ("rocky", "distribution", "Rocky Linux has no Docker of its own: set {key} to docker."),
        ("amzn", "docker", "Docker has no packages for Amazon Linux: set {key} to distribution."),
    ],
)
def test_dockers_packages_that_are_not_there(id: str, packages: str, why: str) -> None:
    assert dockers_refusals(id, packages) == [why.format(key="hosts.hk1.docker.packages")]


@pytest.mark.parametrize("id", ["debian", "rocky", "fedora", "rhel", "amzn"])
def test_certbots_package(id: str) -> None:
    host = Host(**HK1, certificate={"certbot": "distribution", "source": "self-signed"})
    assert bool(acme.refusals(host, facts(id, ""))) == (id in ("rhel", "amzn"))


def test_selinux_lets_nginx_reach_the_relay() -> None:
    host = Host(**HK1, ports={"https": 3489, "backend": 4443})
    enforcing = replace(facts("rocky", "9.6"), commands=ENFORCING)
    tools, policy = selinux.resources(wire(host), enforcing)
    assert isinstance(policy, Selinux)
    assert tools.id in policy.needs
    assert [port for _, port in policy.ports] == [80, 3489, 4443]
    assert selinux.resources(wire(host), facts("rocky", "9.6")) == []


def test_selinux_is_as_before_without_a_front() -> None:
    enforcing = replace(facts("rocky", "9.6"), commands=ENFORCING)
    assert selinux.resources(wire(Host(**HK1, front="none")), enforcing) == [Selinux()]
    assert selinux.absent(enforcing) == [Selinux()]
