"""derper without a container, and a relay under supervisord: the reasons against them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import roles
from engine.facts import Facts, FileFact, Listener, Output
from engine.resource import File, Package, Service
from inventory.packages import PackageSupply
from roles import packages, paths
from roles.relay.runners import supervisord
from tests.roles.cases import load, shipment

INDEX = "Package files:\n 500 http://deb.debian.org/debian bookworm/main amd64 Packages\n"


def a_file(content: str) -> FileFact:
    return FileFact(content=content, sha256="", mode="0644", owner="root", group="root")


def refusals(case: str, facts: Facts, **settings: object) -> list[str]:
    host, site, _ = load(case)
    return roles.refusals(host.model_copy(update=settings), site, facts)


@pytest.mark.parametrize(("arch", "refused"), [("x86_64", 0), ("aarch64", 0), ("armv7l", 1), ("i686", 1)])
def test_a_machine_that_derper_is_not_built_for(arch: str, refused: int) -> None:
    _, _, facts = load("native")
    found = refusals("native", replace(facts, arch=arch))
    assert len(found) == refused
    assert all(arch in sentence and "flavour to docker" in sentence for sentence in found)


def test_derper_behind_a_front_needs_a_firewall_that_closes() -> None:
    host, _, facts = load("native")
    [sentence] = refusals("native", facts, firewall=host.firewall.model_copy(update={"mode": "off"}))
    assert "port 81" in sentence and "hosts.hk1.firewall.mode to auto" in sentence
    _, _, facts = load("native-no-front")
    assert refusals("native-no-front", facts, firewall=host.firewall.model_copy(update={"mode": "off"})) == []


@pytest.mark.parametrize(
    ("index", "candidate", "word"),
    [
        (INDEX, "supervisor:\n  Installed: (none)\n  Candidate: 4.2.5-1\n", ""),
        (INDEX, "", "universe"),
        ("Package files:\n 100 /var/lib/dpkg/status\n", "", ""),  # no index yet: apt gets one
    ],
)
def test_a_host_whose_package_sources_lack_supervisor(index: str, candidate: str, word: str) -> None:
    _, _, facts = load("supervisord")
    said = {"apt_index": index, "apt_supervisor": candidate}
    outputs = {name: Output(status=0, stdout=text, stderr="") for name, text in said.items()}
    found = refusals("supervisord", replace(facts, commands={**facts.commands, **outputs}))
    assert [word in sentence for sentence in found] == ([True] if word else [])


def test_a_supervisord_that_is_no_packages() -> None:
    _, _, facts = load("supervisord")
    tools = {**facts.tools, "supervisorctl": "/usr/local/bin/supervisorctl"}
    [sentence] = refusals("supervisord", replace(facts, tools=tools))
    assert "/usr/local/bin/supervisorctl on hk1" in sentence and "relay.under to systemd" in sentence
    installed = {**facts.files, "/lib/systemd/system/supervisor.service": a_file("")}
    assert refusals("supervisord", replace(facts, tools=tools, files=installed)) == []


@pytest.mark.parametrize(("os_id", "version"), [("rhel", "9.6"), ("ol", "8.10"), ("amzn", "2023")])
def test_a_distribution_without_a_package_of_supervisord(os_id: str, version: str) -> None:
    """Both ways out are named. Once the operator has installed one, it is used as it is."""
    host, site, facts = load("supervisord-el9")
    facts = replace(facts, os_id=os_id, os_version=version)
    [sentence] = refusals("supervisord-el9", facts)
    assert "that brings supervisord.service (EPEL" in sentence and "relay.under to systemd" in sentence
    there = replace(facts, files={**facts.files, "/lib/systemd/system/supervisord.service": a_file("")})
    assert refusals("supervisord-el9", there) == []
    ids = {resource.id for resource in roles.compile_host(host, site, there, shipment(host))}
    assert {"service:supervisord.service", "file:/etc/supervisord.d/derpfleet-relay.ini"} <= ids
    assert "package:supervisor" not in ids


def test_supervisord_of_epel() -> None:
    """A supervisord that is there needs no EPEL. The controller can bring one that is not."""
    host, site, facts = load("supervisord-el9")
    resources = roles.compile_host(host, site, facts, shipment(host))
    needs = {r.package: r.needs for r in resources if isinstance(r, Package)}
    assert (needs["epel-release"], needs["supervisor"]) == ((), ("package:epel-release",))
    assert "supervisor" in packages.names(resources)
    there = replace(facts, files={**facts.files, "/lib/systemd/system/supervisord.service": a_file("")})
    ids = {resource.id for resource in roles.compile_host(host, site, there, shipment(host))}
    assert "package:supervisor" in ids and "package:epel-release" not in ids


def test_epels_packages_are_on_no_mirror_of_the_distribution() -> None:
    """Unless they are there already."""
    host, site, facts = load("supervisord-el9")
    mirror = PackageSupply.model_validate({"mirror": {"rocky": "https://mirrors.example.org/rocky"}})
    [sentence] = refusals("supervisord-el9", facts, packages=mirror)
    assert "`dnf install epel-release` and `dnf install supervisor` on hk1" in sentence
    there = replace(facts, files={**facts.files, "/lib/systemd/system/supervisord.service": a_file("")})
    assert refusals("supervisord-el9", there, packages=mirror) == []
    certbot = host.certificate.model_copy(update={"certbot": "distribution"})
    host = host.model_copy(update={"packages": mirror, "certificate": certbot})
    [_, sentence] = roles.refusals(host, site, facts)
    assert "`dnf install certbot` on hk1" in sentence and "certificate.certbot to shipped" in sentence
    there = replace(there, tools={**there.tools, "certbot": "/usr/bin/certbot"})
    assert roles.refusals(host, site, there) == []


@pytest.mark.parametrize(
    ("section", "refused"),
    [
        ("[include]\nfiles = supervisord.d/*.ini\n", False),
        ("[include] ; ours\nfiles = /srv/*.conf ; theirs\n  %(here)s/supervisord.d/*\n[program:x]\n", False),
        ("[include]\nfiles = supervisord.d/*.conf\n", True),  # as the tutorials' file needs it
        ("[include]\n", True),
        ("", True),
        ("no section\n", False),
    ],
)
def test_a_supervisord_that_would_not_read_our_file(section: str, refused: bool) -> None:
    _, _, facts = load("supervisord-el9")
    said = {**facts.commands, "/etc/supervisord.conf": Output(status=0, stdout=section, stderr="")}
    files = {**facts.files, "/lib/systemd/system/supervisord.service": a_file("")}
    found = refusals("supervisord-el9", replace(facts, commands=said, files=files))
    assert ["include /etc/supervisord.d/*.ini" in sentence for sentence in found] == [True] * refused
    unread = {**said, "/etc/supervisord.conf": Output(status=2, stdout="", stderr="No such file")}
    assert refusals("supervisord-el9", replace(facts, commands=unread, files=files)) == []


def program_file(case: str) -> str:
    host, site, facts = load(case)
    [file] = [
        r
        for r in roles.compile_host(host, site, facts, shipment(host))
        if isinstance(r, File) and r.path in supervisord.KNOWN_BY
    ]
    assert isinstance(file.content, bytes)
    return file.content.decode()


@pytest.mark.parametrize(
    ("unit", "path", "refused"),
    [
        ("supervisor.service", "/etc/supervisor/conf.d/derpfleet-relay.conf", False),
        ("supervisord.service", "/etc/supervisord.d/derpfleet-relay.ini", False),
        ("supervisord.service", "/etc/supervisor/conf.d/derpfleet-relay.conf", True),
        ("supervisor.service", "", True),
    ],
)
def test_our_program_under_supervisord_is_not_in_the_way(unit: str, path: str, refused: bool) -> None:
    _, _, facts = load("native")
    found = Listener(proto="udp", address="0.0.0.0", port=3478, pid=9, program="derper", unit=unit)
    files = {path: a_file(program_file("supervisord"))} if path else {}
    facts = replace(facts, listening=(*facts.listening, found), files={**facts.files, **files})
    assert bool(refusals("native", facts)) == refused
    other = replace(found, port=81, proto="tcp", program="somebodys", unit="shop.service")
    assert refusals("native", replace(facts, listening=(other,)))


def test_a_relay_with_its_own_sockets_is_stopped_before_systemd_opens_them() -> None:
    host, site, facts = load("bare")
    resources = roles.compile_host(host, site, facts, shipment(host))
    [opened] = [r for r in resources if isinstance(r, Service) and r.unit == paths.SOCKET]
    assert opened.before == ("systemctl", "stop", paths.SERVICE)
