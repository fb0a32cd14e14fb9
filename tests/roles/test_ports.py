"""UDP sockets of a host's other programs: which of them the firewall may close."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.facts import Facts, FileFact, Listener, Output
from inventory.model import Host
from roles import firewall, paths
from roles.wiring import wire
from tests.support.facts import DEBIAN_12, NO_NEIGHBOURS

HOST = Host(name="hk1", domain="hk1.example.org", region={"id": 901, "code": "hk", "name": "HK"})
WIRING = wire(HOST)
RANGE = "/proc/sys/net/ipv4/ip_local_port_range"


def facts(
    program: str,
    port: int,
    *,
    address: str = "0.0.0.0",
    given: str = "32768\t60999\n",
    deployed: bool = False,
) -> Facts:
    files = {RANGE: given} | ({paths.FIREWALL_RULES: "x"} if deployed else {})
    unit = f"{program}.service"
    listener = Listener(proto="udp", address=address, port=port, pid=9, program=program, unit=unit)
    known = {
        path: FileFact(content=content, sha256="", mode="0644", owner="root", group="root")
        for path, content in files.items()
    }
    return replace(DEBIAN_12, listening=(listener,), files=known)


@pytest.mark.parametrize(
    ("program", "port", "refused", "warned"),
    [
        ("hysteria", 36712, False, True),
        ("tailscaled", 41641, False, True),
        ("wireguard-go", 61820, True, False),
        ("openvpn", 1194, True, False),
        ("", 51820, True, False),
        ("chronyd", 40123, False, False),
        ("systemd-timesyn", 51234, False, False),
        ("dhclient", 68, False, False),
        ("unbound", 64001, False, False),
    ],
)
def test_programs_that_are_refused_and_that_are_warned_of(
    program: str, port: int, refused: bool, warned: bool
) -> None:
    known = facts(program, port)
    assert bool(firewall.refusals(HOST, WIRING, known, NO_NEIGHBOURS)) == refused
    found = firewall.warnings(HOST, WIRING, known, NO_NEIGHBOURS)
    assert bool(found) == warned
    assert all(f"add {port}/udp to hosts.hk1.firewall.allow" in sentence for sentence in found)


def test_a_wider_ephemeral_range_makes_no_server_a_client() -> None:
    assert firewall.refusals(HOST, WIRING, facts("openvpn", 1194, given="1024\t65535\n"), NO_NEIGHBOURS)
    assert not firewall.refusals(HOST, WIRING, facts("game", 61000, given="1024\t65535\n"), NO_NEIGHBOURS)


def test_no_warning_of_a_port_that_is_allowed_or_on_loopback_or_was_closed_before() -> None:
    open_ports = HOST.firewall.model_copy(update={"allow": ("36000-37000/udp",)})
    allowing = HOST.model_copy(update={"firewall": open_ports})
    assert firewall.warnings(allowing, wire(allowing), facts("hysteria", 36712), NO_NEIGHBOURS) == []
    assert firewall.warnings(HOST, WIRING, facts("hysteria", 36712, address="127.0.0.1"), NO_NEIGHBOURS) == []
    assert firewall.warnings(HOST, WIRING, facts("hysteria", 36712, deployed=True), NO_NEIGHBOURS) == []


def test_ssh_is_open_where_it_is_and_where_its_next_restart_will_put_it() -> None:
    said = Output(status=0, stdout="port 2222\naddressfamily any\nlistenaddress [::1]:2200\n", stderr="")
    moved = replace(DEBIAN_12, ssh_ports=(22,), commands={"sshd": said})
    (table,) = [r for r in firewall.resources(HOST, WIRING, moved, NO_NEIGHBOURS) if r.kind == "firewall"]
    # An NftTable.
    assert b"tcp dport { 22, 80, 443, 2200, 2222 } accept" in table.rules  # type: ignore[attr-defined]
