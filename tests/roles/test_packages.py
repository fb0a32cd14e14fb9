"""Where packages come from: the host's own sources, a mirror, or the controller."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

import roles
from artefacts.release import Release
from engine.facts import Facts, FileFact, Output
from engine.package_source import PackageSource
from engine.plan import compile_plan
from engine.resource import Conffile, Package, Resource
from inventory.choices import MirroredName
from inventory.model import Host
from inventory.packages import PackageSupply
from roles import packages
from roles.distributions import DISTRIBUTIONS
from tests.roles.cases import facts_of, load, shipment

URL = "https://mirror.example.org/linux"


def host_with(case: str = "bare", **keys: Any) -> Host:
    host, _, _ = load(case)
    return host.model_copy(update={"packages": PackageSupply.model_validate(keys)})


def planned(host: Host, case: str = "bare", *, brought: Release | None = None) -> list[Resource]:
    _, site, facts = load(case)
    return roles.compile_host(host, site, facts, replace(shipment(host), packages=brought))


def source_of(resources: list[Resource]) -> PackageSource:
    [source] = [resource for resource in resources if isinstance(resource, PackageSource)]
    return source


def test_words_of_mirrors_are_distributions_that_have_some() -> None:
    assert {*get_args(MirroredName)} == {name for name, row in DISTRIBUTIONS.items() if row.mirror}


def test_without_a_setting_a_plan_is_as_before() -> None:
    assert not any(isinstance(resource, PackageSource) for resource in planned(host_with()))


@pytest.mark.parametrize(
    ("case", "word", "line"),
    [
        (
            "bare", "debian",
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
            f"{URL}-security bookworm-security main",
        ),
        (
            "ubuntu-24.04", "ubuntu",
            "deb [signed-by=/usr/share/keyrings/ubuntu-archive-keyring.gpg] "
            f"{URL} noble-security main universe",
        ),
        ("el9", "rocky", f"baseurl={URL}/$releasever/AppStream/$basearch/os"),
        ("el9", "rocky", "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-Rocky-9"),
        ("el9", "rocky", "gpgcheck=1"),
    ],
)
def test_a_mirror_is_named_as_the_distribution_lays_it_out(case: str, word: str, line: str) -> None:
    resources = planned(host_with(case, mirror={word: f"{URL}/"}), case)
    source = source_of(resources)
    assert line in source.sources.splitlines()
    assert source.id == f"package_source:packages.mirror {URL}/"


def test_all_that_installs_packages_needs_the_source_also_with_only() -> None:
    resources = planned(host_with(mirror={"debian": URL}))
    source = source_of(resources)
    users = [one for one in resources if isinstance(one, Package | Conffile)]
    assert users and all(source.id in one.needs for one in users)
    plan = compile_plan(resources, mode="apply", only=["role:nginx"])
    assert source.id in [resource.id for resource in plan.resources]


def test_a_mirror_of_another_distribution_is_refused_and_says_what_to_set() -> None:
    facts = facts_of("bare")
    [sentence] = refused(host_with(mirror={"rocky": URL}), facts)
    assert "add a mirror of debian, or remove hosts.hk1.packages.mirror" in sentence
    mint = replace(facts, os_id="linuxmint", os_like=("ubuntu", "debian"))
    assert len(refused(host_with(mirror={"debian": URL}), mint)) == 1


def refused(host: Host, facts: Facts) -> list[str]:
    return packages.chosen(host).refusals(host, facts)


def test_the_controller_brings_what_is_not_installed() -> None:
    host = host_with(**{"from": "controller"})
    assert "Debian packages" in roles.ask(host, load("bare")[1]).commands
    there = Output(status=0, stdout="openssl 3 installed\nnginx 1 config-files\nhalf\n", stderr="")
    facts = replace(facts_of("bare"), commands={"Debian packages": there})
    wanted = [Package(package=name) for name in ("openssl", "nginx")]
    assert packages.to_bring(host, facts, wanted) == ["nginx"]
    assert packages.to_bring(host_with(), facts, wanted) == []


def test_the_controller_brings_rpms_as_well() -> None:
    there = Output(status=0, stdout="openssl 1:3.2-1.el9 installed\n", stderr="")
    facts = replace(facts_of("el9"), commands={"Enterprise Linux packages": there})
    wanted = [Package(package=name) for name in ("openssl", "nginx")]
    assert packages.installed(facts) == {"openssl": "1:3.2-1.el9"}
    assert packages.to_bring(host_with("el9", **{"from": "controller"}), facts, wanted) == ["nginx"]


KEY = "gpgkey=file:///etc/pki/rpm-gpg/KEY-$releasever"
SIGNED = f"[base]\ngpgcheck=1\n{KEY}\n"


@pytest.mark.parametrize(
    ("texts", "lines"),
    [
        ((SIGNED,), ("gpgcheck=1", KEY)),
        ((SIGNED, "[own]\ngpgcheck=0\n"), ("gpgcheck=0", KEY)),
        ((SIGNED, "[own]\nenabled=0\ngpgcheck=0\ngpgkey=file:///k\n"), ("gpgcheck=1", KEY)),
        (("[net]\ngpgkey=https://mirror/key\n",), ("gpgcheck=1",)),
        (("no section = 1\n",), ("gpgcheck=1",)),
    ],
)
def test_rpms_of_the_controller_are_checked_as_those_of_the_hosts_own_sources(
    texts: tuple[str, ...], lines: tuple[str, ...], tmp_path: Path
) -> None:
    _, site, facts = load("el9")
    files = {f"/etc/yum.repos.d/{number}.repo": repository(text) for number, text in enumerate(texts)}
    host = host_with("el9", **{"from": "controller"})
    (tmp_path / "x.tar.gz").write_bytes(b"x")
    ship = replace(shipment(host), packages=Release(tmp_path / "x.tar.gz", "0" * 64))
    source = source_of(roles.compile_host(host, site, replace(facts, files={**facts.files, **files}), ship))
    assert "baseurl=file://{folder}/packages" in source.sources.splitlines()
    assert tuple(line for line in source.sources.splitlines() if line.startswith("gpg")) == lines


def repository(text: str) -> FileFact:
    return FileFact(content=text, sha256="", mode="0644", owner="root", group="root")


def test_packages_of_the_controller_are_the_only_source(tmp_path: Path) -> None:
    host = host_with(**{"from": "controller"})
    assert not any(isinstance(resource, PackageSource) for resource in planned(host))
    (tmp_path / "x.tar.gz").write_bytes(b"x")
    source = source_of(planned(host, brought=Release(tmp_path / "x.tar.gz", "0" * 64)))
    assert (source.archive, source.sources) == (
        tmp_path / "x.tar.gz", "deb [trusted=yes] file:{folder}/packages ./\n",
    )


def test_release_8_has_a_stream_of_nginx_and_no_refusal() -> None:
    assert refused(host_with("el8-cron", **{"from": "controller"}), facts_of("el8-cron")) == []
