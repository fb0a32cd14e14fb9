"""Each case's plan is the one that was reviewed."""

from __future__ import annotations

import json
from typing import Any

import pytest

import inventory
import roles
from inventory.model import Host, Site
from tests.roles.cases import FOLDER, names, plan_of, text_of


@pytest.mark.parametrize("name", names())
def test_plan_is_the_reviewed_one(name: str) -> None:
    assert text_of(plan_of(name)) == (FOLDER / name / "plan.json").read_text(), (
        "review it with: python -m tests.roles.cases"
    )


@pytest.mark.parametrize("name", names())
def test_no_secret_is_in_what_people_see(name: str) -> None:
    assert "SECRETVALUE" not in (FOLDER / name / "plan.json").read_text()


@pytest.mark.parametrize(
    ("before", "after"),
    [(name, f"{name}-deployed") for name in ("bare", "docker", "el9-lab", "shared-nginx")],
)
def test_what_a_deploy_changes_asks_for_nothing_new(before: str, after: str) -> None:
    """The facts of a deployed host give the plan that it was deployed with.

    Else a second deploy would not be empty.
    """
    assert (FOLDER / before / "site.yml").read_text() == (FOLDER / after / "site.yml").read_text()
    first, second = (
        {r["id"]: r for r in json.loads((FOLDER / name / "plan.json").read_text())["resources"]}
        for name in (before, after)
    )
    assert first == second


def test_every_role_of_the_plan_is_known() -> None:
    found = {r["role"] for name in names() for r in plan_of(name)["resources"]}
    assert found == set(roles.ROLES)


def asked(flavour: str, **settings: Any) -> str:
    """Return the questions for a host with these settings, as one text."""
    document = {"domain": "hk1.example.org", "region": {"id": 901, "code": "hk", "name": "HK"}}
    host = Host(name="hk1", flavour=flavour, **document | settings)
    ask = roles.ask(host, Site(path="", hosts={"hk1": host}, known_hosts="none"))
    return " ".join([*ask.files, *(word for argv in ask.commands.values() for word in argv)])


def test_only_the_chosen_variants_ask() -> None:
    everything = asked("docker", docker={"archive": "x"})
    assert all(name in everything for name in ("daemon.json", "docker.service", "/certbot/", "iptables-save"))
    assert "/releases/" not in everything
    plain = asked("python", front="none", certificate={"source": "self-signed"}, firewall={"mode": "off"})
    assert not [
        name for name in ("daemon.json", "docker.service", "certbot", "iptables", "ufw") if name in plain
    ]
    assert "/releases/" in plain


def test_a_former_variant_is_asked_about_for_its_removal_and_its_ports() -> None:
    """nginx may serve other sites, and a container that is still there has the relay's ports."""
    plain = asked("python", front="none", certificate={"source": "self-signed"}, firewall={"mode": "off"})
    assert "nginx -T" in plain
    assert "docker container inspect" in plain


def test_what_the_roles_ask_is_asked_once() -> None:
    site = inventory.load(FOLDER / "bare" / "site.yml")
    asked = roles.ask(site.hosts["hk1"], site)
    assert len(asked.files) == len(set(asked.files))
    assert {name: argv[0] for name, argv in asked.commands.items()} == {
        "clocks": "systemctl",
        "container": "docker",
        "firewalld": "systemctl",
        "ip6tables": "ip6tables-save",
        "iptables": "iptables-save",
        "ipv6": "test",
        "links": "ip",
        "nginx": "nginx",
        "nginx_conffiles": "dpkg-query",
        "net.core.default_qdisc": "test",
        "net.core.somaxconn": "test",
        "net.ipv4.tcp_congestion_control": "test",
        "nft_inet": "nft",
        "nft_ruleset": "nft",
        "nginx_files": "rpm",
        "nginx_listens": "grep",
        "nginx_org_conffiles": "dpkg-query",
        "selinux": "getenforce",
        "sshd": "sshd",
        "xfrm": "ip",
    }
