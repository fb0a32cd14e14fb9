"""The judges of who may use a relay: each word of `relay.admission`, and the keys for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.facts import Facts, Output
from engine.resource import Absent, File
from inventory.admission import admission_name, verifies, verify_url
from inventory.files import file_problems
from inventory.model import Headscale, Host, Region, Relay, Site
from relay.admission.allow_file import parse_allow_list
from roles import paths, relay
from tests.support.facts import DEBIAN_12

KEY = f"nodekey:{'ab' * 32}"
CONTROL = Headscale(url="https://hs.example.org")


def site_of(folder: Path = Path("/s"), *, headscale: bool = False, **settings: Any) -> tuple[Host, Site]:
    host = Host(
        name="hk1",
        domain="hk1.example.org",
        region=Region(id=901, code="hk", name="Hong Kong"),
        relay=Relay(**settings),
    )
    control = CONTROL if headscale else None
    path = str(folder / "site.yml")
    return host, Site(path=path, hosts={"hk1": host}, headscale=control, known_hosts="known_hosts")


@pytest.mark.parametrize(
    ("settings", "headscale", "name", "url"),
    [
        ({}, False, "open", ""),
        ({}, True, "headscale", "https://hs.example.org/verify"),
        ({"open": True}, True, "open", ""),
        ({"verify_client_url": "https://a/v"}, True, "url", "https://a/v"),
        ({"verify_client_url": "https://a/v", "admission": "url"}, True, "url", "https://a/v"),
        ({"admission": "open"}, True, "open", ""),
        ({"admission": "tailscaled"}, True, "tailscaled", ""),
        ({"admission": "keys", "keys": (KEY,)}, True, "keys", ""),
    ],
)
def test_the_word_is_given_or_implied(
    settings: dict[str, Any], headscale: bool, name: str, url: str
) -> None:
    host, site = site_of(headscale=headscale, **settings)
    assert admission_name(host, site) == name
    assert verify_url(host, site) == url
    assert verifies(host, site) == (name != "open")
    admitting = relay.chosen_judge(host, site).admitting(host, site)
    assert bool(admitting.flags) == (name != "open") and admitting.url == url


@pytest.mark.parametrize("beside", [False, True])
def test_the_relay_reads_the_list_that_is_shipped(beside: bool, tmp_path: Path) -> None:
    listed = tmp_path / "nodes.txt"
    listed.write_text(f"# laptop\n{KEY}  mine\n")
    keys = {"keys_file": str(listed)} if beside else {"keys": (KEY,)}
    host, site = site_of(admission="keys", **keys)
    judge = relay.chosen_judge(host, site)
    admitting = judge.admitting(host, site)
    [file] = admitting.files
    assert isinstance(file, File) and admitting.flags == (("-allow-file", file.path),)
    text = file.content.read_text() if isinstance(file.content, Path) else file.content
    assert parse_allow_list(text if isinstance(text, str) else bytes(text).decode()) == {b"\xab" * 32}
    assert file_problems(site) == []
    assert judge.absent() == [Absent(path=paths.ALLOWED_KEYS)]


@pytest.mark.parametrize(
    ("text", "why"),
    [(f"{KEY}\nlaptop\n", "line 2: not a node key"), ("# none\n", "has no node key"), ("", "is empty")],
)
def test_a_list_that_the_relay_would_refuse_contacts_no_host(text: str, why: str, tmp_path: Path) -> None:
    listed, site_file = tmp_path / "nodes.txt", tmp_path / "site.yml"
    listed.write_text(text)
    site_file.write_text("hosts: {}\n")
    _, site = site_of(tmp_path, admission="keys", keys_file=str(listed))
    [problem] = file_problems(site)
    assert problem.path == "hosts.hk1.relay.keys_file" and why in problem.message


def answering(**answer: Any) -> Facts:
    said = Output(status=0, stdout=json.dumps({"step": "", "detail": ""} | answer), stderr="")
    return replace(DEBIAN_12, commands={"tailscaled": said})


TAILSCALED, ITS_SITE = site_of(admission="tailscaled")
JUDGE = relay.chosen_judge(TAILSCALED, ITS_SITE)


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        ("socket", "it does not run, or it has another socket"),
        ("login", "logged out, stopped or expired"),
        ("age", "too old to look up node keys"),
        ("localapi", "does not answer the question"),
        ("else", "did not answer our question"),
    ],
)
def test_a_tailscaled_that_cannot_judge_is_refused_before_anything_is_changed(step: str, cause: str) -> None:
    [sentence] = JUDGE.refusals(TAILSCALED, answering(step=step, detail="so it was"))
    assert cause in sentence and "so it was" in sentence and "/run/tailscale/tailscaled.sock" in sentence
    assert JUDGE.refusals(TAILSCALED, DEBIAN_12) != []


def test_no_peers_and_a_key_that_expires_are_warned_of() -> None:
    assert JUDGE.refusals(TAILSCALED, answering(peers=3, key_left_s=90 * 86400.0)) == []
    assert JUDGE.warnings(TAILSCALED, answering(peers=3, key_left_s=90 * 86400.0)) == []
    [policy] = JUDGE.warnings(TAILSCALED, answering(peers=0))
    assert "policy" in policy
    [expiry] = JUDGE.warnings(TAILSCALED, answering(peers=1, key_left_s=86400.0))
    assert "expires in 1 days" in expiry


def test_the_socket_is_named_as_the_relay_sees_it() -> None:
    """Its /var is empty, and /var/run only a link to /run."""
    host, site = site_of(admission="tailscaled", tailscaled={"socket": "/var/run/x.sock"})
    judge = relay.chosen_judge(host, site)
    assert judge.admitting(host, site).flags == (("-verify-clients",), ("-socket", "/run/x.sock"))
    found = relay.inquiry(host, site, KEY)
    assert found is not None and found.judge == "/run/x.sock" and found.program[1:] == ("/run/x.sock", KEY)
