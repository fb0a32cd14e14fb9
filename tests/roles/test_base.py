"""Settings of the kernel that a host may lack, and FIPS mode: the relay is deployed anyway."""

from __future__ import annotations

from dataclasses import replace

import pytest

import roles
from engine.facts import Facts, FileFact, Output
from roles import base
from tests.roles.cases import load


def without(facts: Facts, *keys: str) -> Facts:
    """Return the facts of a host that cannot set these."""
    said = {key: Output(status=1, stdout="", stderr="") for key in keys}
    return replace(facts, commands={**facts.commands, **said})


def test_a_setting_that_cannot_be_set_is_left_out_and_said() -> None:
    host, _, facts = load("bare")
    facts = replace(facts, congestion_controls=("reno", "bbr"))
    there = {r.id for r in base.resources(facts)}
    assert {"sysctl:net.core.somaxconn", "sysctl:net.ipv4.tcp_congestion_control"} <= there
    assert base.warnings(host, facts) == []
    lacking = without(facts, "net.core.somaxconn", "net.ipv4.tcp_congestion_control")
    left = {r.id for r in base.resources(lacking)}
    assert not {id for id in left if id.startswith("sysctl:") and "qdisc" not in id}
    backlog, control = base.warnings(host, lacking)
    assert backlog.startswith("net.core.somaxconn of hk1 cannot be set to 4096")
    assert "packets over long ways come more slowly" in control


def test_a_setting_that_is_not_wanted_is_not_missed() -> None:
    host, _, facts = load("bare")
    facts = replace(facts, congestion_controls=("reno",), files={})
    assert base.warnings(host, without(facts, "net.ipv4.tcp_congestion_control")) == []


@pytest.mark.parametrize(("content", "warned"), [("1\n", True), ("0\n", False), (None, False)])
def test_fips_mode_is_warned_of(content: str | None, warned: bool) -> None:
    """With the file's content as Linux has it; a kernel without the mode has no such file."""
    host, site, facts = load("bare")
    path = "/proc/sys/crypto/fips_enabled"
    file = FileFact(content=content, sha256="", mode="0444", owner="root", group="root")
    facts = replace(facts, files={**facts.files, **({path: file} if content else {})})
    assert path in roles.ask(host, site).files
    found = [text for text in roles.warnings(host, site, facts) if "FIPS" in text]
    assert bool(found) == warned
    assert all(f" {word} " in text for text in found for word in ("Curve25519", "X25519", "another;"))
