"""A firewall that a host has of its own: which one is used, and what is opened there."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from engine.boot import agent_modules
from engine.facts import Facts, FileFact, Output
from engine.resource import NftTable, OpenPorts, Resource
from inventory.model import Host
from roles import firewall
from roles.firewall import own
from roles.wiring import wire
from tests.support.facts import DEBIAN_12, NO_NEIGHBOURS

HK1 = {"name": "hk1", "domain": "hk1.example.org", "region": {"id": 901, "code": "hk", "name": "HK"}}
OURS = "firewall:derpfleet"


def host(mode: str = "", *allow: str, **settings: Any) -> Host:
    own = {"mode": mode} if mode else {}
    return Host(**HK1, **settings, firewall={**own, "allow": allow})


def facts(*active: str, noted: tuple[str, ...] = (), conf: str = "ENABLED=no\n") -> Facts:
    """Return the facts of a host with these firewalls active, and with our notes of these."""

    def file(content: str) -> FileFact:
        return FileFact(content=content, sha256="", mode="0644", owner="root", group="root")

    files = {f"/var/lib/derpfleet/opened-{name}": file("[]") for name in noted}
    files["/etc/ufw/ufw.conf"] = file("LOGLEVEL=low\nENABLED=yes\n" if "ufw" in active else conf)
    state = Output(status=3, stdout="inactive\n", stderr="")
    if "firewalld" in active:
        state = Output(status=0, stdout="active\n", stderr="")
    return replace(DEBIAN_12, files=files, commands={"firewalld": state})


def compiled(mode: str, known: Facts) -> dict[str, Resource]:
    return {r.id: r for r in firewall.resources(host(mode), wire(host(mode)), known, NO_NEIGHBOURS)}


@pytest.mark.parametrize(
    ("mode", "active", "guard"),
    [
        ("", (), OURS),
        ("", ("ufw",), "open_ports:ufw"),
        ("", ("firewalld",), "open_ports:firewalld"),
        ("auto", ("ufw",), "open_ports:ufw"),
        ("ufw", ("ufw",), "open_ports:ufw"),
        ("firewalld", ("firewalld",), "open_ports:firewalld"),
        ("enforce", (), OURS),
        ("off", ("ufw", "firewalld"), ""),
    ],
)
def test_the_one_in_charge_is_used(mode: str, active: tuple[str, ...], guard: str) -> None:
    known = facts(*active)
    assert firewall.refusals(host(mode), wire(host(mode)), known, NO_NEIGHBOURS) == []
    guards = {
        id
        for id, one in compiled(mode, known).items()
        if isinstance(one, OpenPorts) or (isinstance(one, NftTable) and one.present)
    }
    assert guards == ({guard} if guard else set())


@pytest.mark.parametrize(
    ("conf", "active"),
    [("ENABLED=yes\n", True), ('ENABLED="yes"\n', True), ("# ENABLED=yes\nENABLED=no\n", False), ("", False)],
)
def test_ufws_own_setting_is_read(conf: str, active: bool) -> None:
    assert ("open_ports:ufw" in compiled("", facts(conf=conf))) == active


def test_ssh_and_other_programs_are_left_to_the_hosts_own_rules() -> None:
    wanted = host("", "51820/udp", "8000-8010/tcp", ports={"stun": 3490})
    resources = firewall.resources(wanted, wire(wanted), facts("ufw"), NO_NEIGHBOURS)
    (opened,) = [r for r in resources if isinstance(r, OpenPorts)]
    assert opened.ports == ("80/tcp", "443/tcp", "8000-8010/tcp", "3490/udp", "51820/udp")


def test_our_table_goes_where_another_is_used() -> None:
    gone = compiled("", facts("ufw"))
    assert {"service:derpfleet-firewall.service", "firewall:derpfleet"} <= set(gone)
    table = gone["firewall:derpfleet"]
    assert isinstance(table, NftTable) and not table.present  # also one that its unit has not loaded


@pytest.mark.parametrize("mode", ["enforce", "off", "firewalld"])
def test_what_we_opened_in_a_former_one_is_closed(mode: str) -> None:
    active = ("firewalld",) if mode == "firewalld" else ()
    (closed,) = [r for id, r in compiled(mode, facts(*active, noted=("ufw",))).items() if id.endswith("ufw")]
    assert closed == OpenPorts(through="ufw")
    assert "open_ports:ufw" not in compiled(mode, facts(*active))


@pytest.mark.parametrize(
    ("mode", "active", "named", "step"),
    [
        ("enforce", ("ufw",), "ufw", "ufw disable"),
        ("enforce", ("firewalld",), "firewalld", "systemctl disable --now firewalld"),
        ("ufw", ("ufw", "firewalld"), "firewalld", "systemctl disable --now firewalld"),
        ("firewalld", ("ufw", "firewalld"), "ufw", "ufw disable"),
        ("auto", ("ufw", "firewalld"), "firewalld", "systemctl disable --now firewalld"),
    ],
)
def test_a_second_firewall_is_refused(mode: str, active: tuple[str, ...], named: str, step: str) -> None:
    (sentence,) = firewall.refusals(host(mode), wire(host(mode)), facts(*active), NO_NEIGHBOURS)
    assert sentence.startswith(f"{named} is active on hk1, and two firewalls would close each other's ports.")
    assert f"set hosts.hk1.firewall.mode to {named}," in sentence
    assert sentence.endswith(f"run on the host: {step}.")


@pytest.mark.parametrize(
    ("mode", "start"),
    [
        ("ufw", "ufw allow 2222/tcp && ufw --force enable"),
        ("firewalld", "firewall-offline-cmd --add-port=2222/tcp && systemctl enable --now firewalld"),
    ],
)
def test_one_that_is_not_active_is_not_started_by_us(mode: str, start: str) -> None:
    known = replace(facts(), ssh_ports=(2222,))
    (sentence,) = firewall.refusals(host(mode), wire(host(mode)), known, NO_NEIGHBOURS)
    assert f"run on the host: {start}. Or set hosts.hk1.firewall.mode to auto" in sentence


@pytest.mark.parametrize("mode", ["ufw", "firewalld"])
def test_a_protocol_without_ports_is_refused(mode: str) -> None:
    wanted = host(mode, "47/ip")
    (sentence,) = firewall.refusals(wanted, wire(wanted), facts(mode), NO_NEIGHBOURS)
    assert "firewall.allow has 47/ip" in sentence


def test_each_mode_asks_what_it_needs_to_know() -> None:
    enforce, off = firewall.ask(host("enforce")), firewall.ask(host("off"))
    assert {"/etc/ufw/ufw.conf", "/var/lib/derpfleet/opened-*"} <= set(enforce.files)
    assert "firewalld" in enforce.commands
    notes = {"/var/lib/derpfleet/opened-*", "/etc/systemd/system/derpfleet-backend.service"}
    assert (set(off.files), off.commands) == (notes, {})  # all that an earlier mode may have left
    assert "nft_ruleset" not in firewall.ask(host("ufw")).commands
    assert firewall.ask(host("auto")) == firewall.ask(host(""))


@pytest.mark.parametrize("one", own.FIREWALLS, ids=lambda one: one.name)
def test_the_agent_has_a_module_of_its_name(one: own.HostsOwn) -> None:
    assert re.search(r"^FAMILY = \w+$", agent_modules()[one.name], re.M)
