"""The relay's port behind a front: which of the host's own users may connect to it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.facts import Facts, FileFact, Output
from engine.resource import NftTable
from inventory.model import Host
from roles import firewall, front
from roles.wiring import wire
from tests.roles.cases import FOLDER, deployable, load
from tests.support.facts import DEBIAN_12, NO_NEIGHBOURS

HK1 = {"name": "hk1", "domain": "hk1.example.org", "region": {"id": 901, "code": "hk", "name": "HK"}}
TABLE, UNIT = "firewall:derpfleet_backend", "/etc/systemd/system/derpfleet-backend.service"
MAIN = "/etc/nginx/nginx.conf"
SITE = "http { server { listen 80; server_name a.example; } }"
# Connects as each user in turn, and prints those that get through.
CALL = """
import os, socket, sys
servers = [socket.create_server((a, 81), family=f, dualstack_ipv6=False) for a, f in
           (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6))]
other = socket.create_server(("127.0.0.1", 82))
for uid in map(int, sys.argv[1:]):
    os.seteuid(uid)
    for place in (("127.0.0.1", 81), ("::1", 81), ("127.0.0.1", 82)):
        try:
            socket.create_connection(place, 2).close()
            print(uid, *place)
        except ConnectionRefusedError:
            pass
    os.seteuid(0)
"""


def a_file(content: str) -> FileFact:
    return FileFact(content=content, sha256="", mode="0644", owner="root", group="root")


def with_nginx(main: str, *, status: int = 0) -> Facts:
    """Return the facts of a host with this nginx.conf, which nginx accepts if `status` is 0."""
    printed = f"# configuration file {MAIN}:\n{main}" if status == 0 else ""
    output = Output(status=status, stdout=printed, stderr="[emerg] broken" if status else "")
    tools = {"nginx": "/usr/sbin/nginx"}
    return replace(DEBIAN_12, tools=tools, files={MAIN: a_file(main)}, commands={"nginx": output})


def compiled(facts: Facts = DEBIAN_12, **settings: Any) -> dict[str, Any]:
    host = Host(**HK1, **settings)
    callers = front.chosen(host).callers(facts)
    return {r.id: r for r in firewall.resources(host, wire(host), facts, NO_NEIGHBOURS, callers)}


def users(facts: Facts = DEBIAN_12, **settings: Any) -> str:
    """Return the users that the table lets in, or "" without one."""
    table = compiled(facts, **settings).get(TABLE)
    return table.rules.decode().partition("skuid != { ")[2].partition(" }")[0] if table else ""


@pytest.mark.parametrize("name", ["nginx", "nginx-stream"])
@pytest.mark.parametrize("flavour", ["python", "docker", "native", "supervisord"])
def test_behind_nginx_only_root_and_its_workers_may_connect(name: str, flavour: str) -> None:
    assert users(front=name, flavour=flavour) == '"root", "www-data"'


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (with_nginx(f"user web web;\n{SITE}"), '"root", "web"'),
        (with_nginx(f'user "web";\n{SITE}'), '"root", "web"'),
        (with_nginx(f"user root;\n{SITE}"), '"root"'),
        (with_nginx(f"user web;\n{SITE}", status=1), '"root", "web"'),
        (with_nginx(SITE), ""),
        (with_nginx('user "a\\"; } accept";\n' + SITE), ""),
        (with_nginx("user web; http {", status=1), ""),
    ],
)
def test_the_workers_user_is_that_of_the_hosts_nginx(facts: Facts, found: str) -> None:
    assert users(facts) == found


@pytest.mark.parametrize("mode", ["enforce", "ufw", "firewalld", "auto"])
def test_it_is_there_beside_every_firewall_once_nginx_is_installed(mode: str) -> None:
    found = compiled(firewall={"mode": mode})
    assert "package:nftables" in found
    assert {"package:nftables", "package:nginx"} <= set(found[TABLE].needs)
    assert found[TABLE].revert_after_s == 0  # it can lock nobody out


@pytest.mark.parametrize(
    "settings",
    [
        {"front": "none"},
        {"front": "external", "external": {"kind": "haproxy"}},
        {"firewall": {"mode": "off"}},
    ],
)
def test_it_goes_where_the_caller_is_not_known_or_no_table_is_wanted(settings: dict[str, Any]) -> None:
    there = replace(DEBIAN_12, files={UNIT: a_file("")})
    gone = compiled(there, **settings)
    assert {f"service:{Path(UNIT).name}", f"absent:{UNIT}", TABLE} <= set(gone)
    table = gone[TABLE]
    assert isinstance(table, NftTable) and not table.present  # also one that its unit has not loaded
    assert not [id for id in compiled(**settings) if "backend" in id]
    assert UNIT in firewall.ask(Host(**HK1, **settings)).files


@pytest.mark.parametrize("name", deployable())
def test_no_plan_leaves_the_port_behind_nginx_open(name: str) -> None:
    host, _, facts = load(name)
    plan = json.loads((FOLDER / name / "plan.json").read_text())
    ids = {resource["id"] for resource in plan["resources"]}
    is_behind = bool(front.chosen(host).callers(facts)) and host.firewall.mode != "off"
    assert (TABLE in ids) == is_behind


def test_the_kernel_refuses_every_other_user(tmp_path: Path) -> None:
    """Real nft and real connections, in a network namespace of the test's own."""
    table = compiled()[TABLE]
    assert isinstance(table, NftTable)
    path = tmp_path / "backend.nft"
    path.write_bytes(table.rules)
    load = 'ip link set lo up; nft -f "$1"; nft -f "$1"; exec python3 -c "$2" 0 33 65534 1'
    argv = ["unshare", "--net", "sh", "-ec", load, "sh", str(path), CALL]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.endswith(" 81")] == [
        "0 127.0.0.1 81", "0 ::1 81", "33 127.0.0.1 81", "33 ::1 81",
    ]  # fmt: skip
    assert len([line for line in lines if line.endswith(" 82")]) == 4
