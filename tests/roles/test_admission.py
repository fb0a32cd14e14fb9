"""The judges of who may use a relay: each word of `relay.admission`, and the keys for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

import roles
from artefacts.shipment import auth_key
from engine.facts import Facts, FileFact, Output
from engine.resource import Absent, Command, Container, File
from inventory import tailscaled
from inventory.admission import admission_name, verifies, verify_url
from inventory.choices import AdmissionName, FlavourName
from inventory.docker import Docker
from inventory.files import file_problems
from inventory.model import Headscale, Host, Region, Relay, Site
from inventory.rules import host_findings
from inventory.secrets import Secret
from relay.admission.allow_file import parse_allow_list
from roles import paths, relay
from roles.relay.runners import supervisord
from tests.roles.cases import shipment
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
    admitting = relay.chosen_judge(host, site).admitting(host, site, DEBIAN_12, shipment(host))
    assert bool(admitting.flags) == (name != "open") and admitting.url == url


@pytest.mark.parametrize("beside", [False, True])
def test_the_relay_reads_the_list_that_is_shipped(beside: bool, tmp_path: Path) -> None:
    listed = tmp_path / "nodes.txt"
    listed.write_text(f"# laptop\n{KEY}  mine\n")
    keys = {"keys_file": str(listed)} if beside else {"keys": (KEY,)}
    host, site = site_of(admission="keys", **keys)
    judge = relay.chosen_judge(host, site)
    admitting = judge.admitting(host, site, DEBIAN_12, shipment(host))
    [file] = admitting.resources
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


SETTINGS: Mapping[AdmissionName, dict[str, Any]] = {
    "headscale": {},
    "url": {"verify_client_url": "https://a/v"},
    "tailscaled": {},
    "keys": {"keys": (KEY,)},
    "open": {},
}
# The words of a relay that is told so.
TOLD: Mapping[AdmissionName, str] = {
    "headscale": "https://hs.example.org/verify",
    "url": "https://a/v",
    "tailscaled": "-socket /run/tailscale/tailscaled.sock",
    "keys": f"-allow-file {paths.ALLOWED_KEYS}",
}
REFUSED = {("docker", "tailscaled"), ("docker", "keys"), ("native", "keys"), ("supervisord", "keys")}
STARTS = (f"{paths.SYSTEMD}/{paths.SERVICE}", *supervisord.KNOWN_BY)
WAYS_IN = {f"file:{paths.PROBER_KEYS}", f"file:{paths.MESH_KEY}"}


@pytest.mark.parametrize("word", get_args(AdmissionName))
@pytest.mark.parametrize("flavour", get_args(FlavourName))
def test_every_program_is_told_every_admission_or_refused_before_contact(
    flavour: FlavourName, word: AdmissionName
) -> None:
    host, site = site_of(headscale=True, admission=word, **SETTINGS[word])
    host = host.model_copy(update={"flavour": flavour, "docker": Docker(archive="a.tar")})
    refusals = [found.message for found in host_findings(host) if found.path == "relay.admission"]
    assert bool(refusals) == ((flavour, word) in REFUSED)
    if refusals:
        assert "use flavour: python" in refusals[0]
        return
    resources = roles.compile_host(host, site, answering(peers=1), shipment(host))
    files = [one.content for one in resources if isinstance(one, File) and one.path in STARTS]
    containers = [one.arguments for one in resources if isinstance(one, Container) and one.image]
    [running] = [*files, *containers]
    text = running.decode() if isinstance(running, bytes) else str(running)
    assert {other for other, words in TOLD.items() if words in text} == {word} - {"open"}
    assert bool(WAYS_IN & {one.id for one in resources}) == (word != "open")


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
    [silent] = JUDGE.refusals(TAILSCALED, DEBIAN_12)
    assert "Look with `python3 --version`" in silent


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
    flags = judge.admitting(host, site, DEBIAN_12, shipment(host)).flags
    assert flags == (("-verify-clients",), ("-socket", "/run/x.sock"))
    found = relay.inquiry(host, site, KEY)
    assert found is not None and found.judge == "/run/x.sock" and found.program[1:] == ("/run/x.sock", KEY)


AUTH_KEY = "env:TS_AUTHKEY"
OURS: dict[str, Any] = {"admission": "tailscaled", "tailscaled": {"manage": True, "auth_key": AUTH_KEY}}


def in_state(state: str, **answer: Any) -> Facts:
    """Return the facts of a host whose tailscaled of ours is in this state."""
    facts = answering(**answer)
    found = Output(status=int(state != "Running"), stdout=f"{state}\n", stderr="")
    return replace(facts, commands={**facts.commands, tailscaled.STATE: found})


@pytest.mark.parametrize(
    ("state", "needed"),
    [("", True), ("NeedsLogin", True), ("Elsewhere", True)]
    + [(state, False) for state in ("Running", "Down", "Stopped", "Starting", "NeedsMachineAuth")],
)
def test_the_auth_key_is_sent_only_to_a_tailscaled_that_has_yet_to_join(state: str, needed: bool) -> None:
    host, site = site_of(**OURS)
    facts = in_state(state)
    assert auth_key(host, facts) == (AUTH_KEY if needed else None)
    found = roles.compile_host(host, site, facts, shipment(host, auth_key(host, facts)))
    sent = [one for one in found if isinstance(one, File) and isinstance(one.content, Secret)]
    assert [(one.path, one.mode, one.secret) for one in sent] == (
        [("/run/derpfleet/tailscaled.key", "0600", True)] if needed else []
    )
    [join] = [one for one in found if one.id == "command:tailnet joined"]
    assert isinstance(join, Command) and "SECRETVALUE" not in str(join)
    assert set(join.needs) >= {"service:derpfleet-tailscaled.service", *(one.id for one in sent)}
    relay_service = next(one for one in found if one.id == f"service:{paths.SERVICE}")
    assert join.id in relay_service.needs


@pytest.mark.parametrize(
    ("headscale", "given", "server"),
    [
        (False, {}, "https://controlplane.tailscale.com"),
        (True, {}, "https://hs.example.org"),
        (True, {"login_server": "https://other.example.org/"}, "https://other.example.org"),
    ],
)
def test_it_joins_the_sites_headscale_or_tailscales_own(
    headscale: bool, given: dict[str, str], server: str
) -> None:
    host, site = site_of(headscale=headscale, admission="tailscaled", tailscaled=OURS["tailscaled"] | given)
    judge = relay.chosen_judge(host, site)
    question = judge.ask(host, site).commands[tailscaled.STATE]
    admitting = judge.admitting(host, site, DEBIAN_12, shipment(host))
    [join] = [one for one in admitting.resources if isinstance(one, Command)]
    assert question[-1] == server
    assert join.unless[1:] == question[1:] and join.argv[: len(join.unless)] == join.unless
    assert admitting.flags[-1] == ("-socket", tailscaled.SOCKET)


def test_a_machine_without_a_program_and_a_tailnet_without_nodes_are_named() -> None:
    host, site = site_of(**OURS)
    judge = relay.chosen_judge(host, site)
    assert judge.refusals(host, in_state("NeedsLogin", step="login")) == []
    [sentence] = judge.refusals(host, replace(DEBIAN_12, arch="armv7l"))
    assert "armv7l" in sentence and "relay.tailscaled.manage" in sentence
    [policy] = judge.warnings(host, in_state("Running", peers=0))
    assert "policy" in policy


def test_a_tailscaled_of_ours_goes_when_another_admission_is_chosen() -> None:
    """Its unit's file tells that it is there. Without one, a plan does not look for it."""
    host, site = site_of(admission="tailscaled")
    unit = f"{paths.SYSTEMD}/{tailscaled.UNIT}"
    there = FileFact(content="", sha256="", mode="0644", owner="root", group="root")
    facts = answering(peers=1)
    assert unit in relay.ask(host, site).files
    for files, gone in (({}, False), ({unit: there}, True)):
        found = roles.compile_host(host, site, replace(facts, files=files), shipment(host))
        ids = {one.id: one.needs for one in found}
        assert ("command:tailnet left" in ids) == (f"absent:{unit}" in ids) == gone
        if gone:
            assert f"service:{paths.SERVICE}" in ids["command:tailnet left"]
            assert "command:tailnet left" in ids[f"service:{tailscaled.UNIT}"]


@pytest.mark.parametrize(
    ("socket", "unit", "program"),
    [(tailscaled.SOCKET, tailscaled.UNIT, tailscaled.PROGRAM), ("/run/x.sock", "tailscaled", "tailscale")],
)
def test_the_command_to_look_with_is_that_of_the_tailscaled_that_is_asked(
    socket: str, unit: str, program: str
) -> None:
    names = tailscaled.names(socket)
    commands = [command.format(judge=socket, **names) for _, command in tailscaled.CAUSES.values()]
    assert f"systemctl status {unit}" in commands
    assert f"{program} --socket={socket} status" in commands
