"""A relay that somebody else runs is proved and registered. Nobody logs in to its host."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from control.derpmap import region, region_node
from engine.report import Report
from fleet import check, deploy, logs, renew, trust
from fleet.doctor import hosts as doctor_hosts
from fleet.shared import confirm, host_status, out_of_service, prove
from fleet.shared.ask_admission import Questions
from fleet.shared.errors import NotManaged
from fleet.shared.fleet import Fleet
from fleet.shared.out_of_service import StillRuns
from inventory.choices import FrontName
from inventory.model import Host, Site
from inventory.others import of_no_effect_there
from inventory.part import Model
from inventory.secrets import Secret, SecretError
from inventory.site_file import compile_site
from probe.proof import Proof
from tests.control.test_headscale import site_of
from tests.fleet.test_deploy import World
from tests.fleet.test_withdraw import World as Withdrawing
from tests.fleet.test_withdraw import make_world, proof


def with_others(site: Site, name: str = "sg1") -> Site:
    """Return the site, one of whose relays somebody else runs."""
    host = site.hosts[name].model_copy(update={"managed": False})
    return site.model_copy(update={"hosts": {**site.hosts, name: host}})


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(Fleet, "runs", tmp_path)

    def no_session(*_: Any) -> None:
        raise AssertionError("a session was opened")

    monkeypatch.setattr(Fleet, "session_for_reading", no_session)
    return Fleet(with_others(site_of()), Report(console=Console(file=io.StringIO(), width=400)))


def shown(fleet: Fleet) -> str:
    file = fleet.report.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def sg1(fleet: Fleet) -> Host:
    return fleet.site.hosts["sg1"]


def test_nobody_logs_in_there(fleet: Fleet) -> None:
    with pytest.raises(NotManaged, match="somebody else runs this relay") as refused:
        fleet.login(sg1(fleet))
    error = refused.value
    assert (error.host, error.exit_code) == ("sg1", 4)
    assert error.why == "hosts.sg1.managed is false in the site file"
    assert "invoke verify --host sg1" in error.next


def test_a_verb_over_all_hosts_leaves_it_out_with_a_word_and_one_that_names_it_is_refused(
    fleet: Fleet,
) -> None:
    assert [host.name for host in fleet.managed([])] == ["hk1"]
    assert "sg1        skipped      managed: false, somebody else runs it\n" in shown(fleet)
    with pytest.raises(NotManaged):
        fleet.managed(["sg1"])


@pytest.mark.parametrize("relay", [False, True])
def test_it_has_no_log_here(fleet: Fleet, relay: bool) -> None:
    with pytest.raises(NotManaged):
        logs.logs(fleet, "sg1", relay=relay, lines="50")


def test_its_key_is_not_pinned(fleet: Fleet) -> None:
    names = [login.name for login in trust.logins(fleet, [])]
    assert names == ["hk1", "headscale"]


def test_its_certificate_is_renewed_there(fleet: Fleet) -> None:
    assert renew.renew(fleet, [sg1(fleet)], force=True) == 0
    assert "its certificate is renewed there" in shown(fleet)


def test_its_host_is_asked_nothing_by_a_status_a_doctor_and_a_proof(fleet: Fleet) -> None:
    host = sg1(fleet)
    assert host_status.read_status(fleet, host, []) == host_status.HostStatus()
    [diagnosis] = doctor_hosts.inside(fleet, host).diagnoses
    assert (diagnosis.check, diagnosis.status) == ("login", "skipped")
    questions = Questions(fleet, [host])
    [target] = prove.targets(fleet, [host])
    climbed = proof("sg1", ok=True)
    assert questions.added(target, climbed) is climbed
    questions.close()


def test_a_proof_names_no_deploy_as_the_next_step(fleet: Fleet) -> None:
    [target] = prove.targets(fleet, [sg1(fleet)])
    assert (target.managed, target.of_site, target.fronted, target.prover) == (False, True, False, None)
    assert target.read_log == "read the relay's log, then invoke verify --host sg1"
    assert target.restart() == "restart the relay, then invoke verify --host sg1"


@pytest.mark.parametrize(("value", "fits"), [("ab" * 32, True), ("ab" * 31, False)])
def test_its_mesh_key_lets_our_clients_in(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, value: str, fits: bool
) -> None:
    monkeypatch.setenv("MESH", value)
    host = sg1(fleet)
    host = host.model_copy(update={"relay": host.relay.model_copy(update={"mesh_key": "env:MESH"})})
    if not fits:
        with pytest.raises(SecretError):
            prove.targets(fleet, [host])
        return
    [target] = prove.targets(fleet, [host])
    assert target.prover is not None
    assert isinstance(target.prover.mesh_key, Secret)
    assert target.prover.mesh_key.reveal() == value


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch, note=None)
    made.fleet.site = with_others(made.fleet.site)
    return made


def test_a_deploy_proves_and_registers_it(world: World) -> None:
    assert deploy.deploy(world.fleet, [sg1(world.fleet)]) == 0
    assert world.registered == ["sg1"]
    assert "managed: false, somebody else runs it: it is proved, and registered" in world.shown.getvalue()


def test_a_deploy_of_parts_leaves_it_alone(world: World) -> None:
    assert deploy.deploy(world.fleet, [sg1(world.fleet)], only=["role:nginx"]) == 0
    assert world.registered == []


def test_one_that_is_broken_stops_no_deploy_of_ours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def proofs(_: Fleet, hosts: Any, **__: Any) -> dict[str, Proof]:
        return {host.name: proof(host.name, ok=host.managed) for host in hosts}

    server = SimpleNamespace(unasked=str, register=world.register, not_proved=lambda _: None)
    monkeypatch.setattr(deploy, "prove_hosts", proofs)
    monkeypatch.setattr(deploy, "control_server", lambda _: server)
    hosts = [world.fleet.site.hosts[name] for name in ("sg1", "hk1")]
    assert deploy.deploy(world.fleet, hosts) == 1
    assert world.registered == ["hk1"]
    assert "sg1 is NOT proved, so it is not registered" in world.shown.getvalue()


def test_a_check_compares_only_its_region(world: World) -> None:
    assert check.check(world.fleet, [sg1(world.fleet)]) == 10
    assert world.registered == ["sg1"]
    assert "only its region is compared" in world.shown.getvalue()


@pytest.fixture
def withdrawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Withdrawing:
    return make_world(with_others(site_of(), "hk1"), tmp_path, monkeypatch)


def test_a_withdrawal_waits_until_somebody_has_stopped_it(
    withdrawing: Withdrawing, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [True, True, True, False]
    monkeypatch.setattr(out_of_service, "prove", lambda _: [proof("hk1", ok=answers.pop(0))])
    assert withdrawing.withdraw() == 0
    assert withdrawing.done == ["map"]
    assert "hk1        waiting      stop it now, such as by scaling it to 0" in withdrawing.shown.getvalue()
    assert "hk1        ok           nothing of its relay answers" in withdrawing.shown.getvalue()


def test_one_that_runs_on_stays_in_the_map(withdrawing: Withdrawing) -> None:
    withdrawing.answers = True
    with pytest.raises(StillRuns, match="nothing was changed: the relay still answers"):
        withdrawing.withdraw()
    assert withdrawing.done == []
    assert withdrawing.slept >= out_of_service.STOPPING_S


def test_it_counts_as_another_relay_and_as_the_control_of_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(with_others(site_of()), tmp_path, monkeypatch)
    assert world.withdraw("hk1") == 0
    assert world.climbed == ["sg1"]
    prove.keep(world.fleet, "sg1", held := replace(proof("sg1", ok=True), address="sg1.example.org"))
    monkeypatch.setattr(confirm, "climb", lambda *_: [held])
    judge = confirm.Confirmation(world.fleet, world.fleet.site.hosts["hk1"], None)
    assert judge._control(judge.host) is True


@pytest.mark.parametrize("front", ["nginx", "direct"])
def test_where_nothing_answers_on_port_80_clients_are_told(fleet: Fleet, front: FrontName) -> None:
    host = sg1(fleet).model_copy(update={"front": front})
    assert region_node(host)["CanPort80"] == (front == "nginx")
    assert (prove.targets(fleet, [host])[0].http_port == 80) == (front == "nginx")


# Each key with an effect, with a value that has it. `relay.open` needs a headscale for that.
EFFECTS: dict[str, Any] = {
    "domain": "other.example.org", "ipv4": "203.0.113.41", "ipv6": "2001:db8::1",
    "region.id": 911, "region.code": "other", "region.name": "Other",
    "region.latitude": 50.0, "region.longitude": 50.0,
    "managed": True, "front": "direct", "ports.https": 8443, "ports.http": 8080, "ports.stun": 3479,
    "certificate.source": "manual", "certificate.pin": "ab" * 32, "certificate.ca": "/etc/ca.pem",
    "relay.admission": "tailscaled", "relay.verify_client_url": "https://hs.example.org/verify",
    "relay.open": True, "relay.mesh_key": "env:MESH",
}  # fmt: skip
# The keys without which another one has none.
BESIDE: dict[str, Any] = {
    "region.latitude": {"region": {"longitude": 8.0, "latitude": 8.0}},
    "region.longitude": {"region": {"longitude": 8.0, "latitude": 8.0}},
    "certificate.source": {"front": "direct"},
    "relay.mesh_key": {"relay": {"admission": "tailscaled"}},
}


def every_key() -> Iterator[str]:
    """Yield the keys of a host in a site file, down to those of its sections."""
    for name, field in Host.model_fields.items():
        kind = field.annotation
        is_section = isinstance(kind, type) and issubclass(kind, Model)
        yield from (f"{name}.{key}" for key in kind.model_fields) if is_section else (name,)


def seen(key: str, more: dict[str, Any]) -> Any:
    """Return how a relay with these keys has to answer, and its region."""
    host: dict[str, Any] = {"domain": "derp.example.org", "ipv4": "203.0.113.40", "managed": False}
    host["region"] = {"id": 910, "code": "k8s", "name": "K"}
    for name, value in [*BESIDE.get(key, {}).items(), *more.items()]:
        host[name] = host.get(name, {}) | value if isinstance(value, dict) else value
    if host["managed"]:
        host["certificate"] = {"agree_terms": True}
    raw: dict[str, Any] = {"hosts": {"k1": host}}
    if key == "relay.open":
        raw["headscale"] = {"url": "https://hs.example.org"}
    site = compile_site(json.dumps(raw), Path("/site.yml"))
    assert isinstance(site, Site), [str(problem) for problem in site]
    [target] = prove.targets(Fleet(site, Report()), [site.hosts["k1"]])
    is_ours = target.managed
    return replace(target, prover=None, deploy=None), is_ours, bool(target.prover), region(site.hosts["k1"])


@pytest.mark.parametrize("key", sorted({*every_key()} - {"name"}))
def test_every_key_has_an_effect_there_or_is_refused(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fleet, "runs", tmp_path)
    monkeypatch.setenv("MESH", "ab" * 32)
    section, _, name = key.partition(".")
    if key in EFFECTS:
        changed = {section: {name: EFFECTS[key]} if name else EFFECTS[key]}
        assert seen(key, changed) != seen(key, {})
    else:
        written = {"k1": {"managed": False, section: {name: 1} if name else 1}}
        [(path, _)] = of_no_effect_there(written, written)
        assert ".".join(path) in (f"hosts.k1.{section}", f"hosts.k1.{key}")
