"""The relay's programs and runners: their tables, and the removal of everything they install."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import inventory
import roles
from engine.facts import Facts, FileFact
from engine.health import Http
from engine.plan import compile_plan
from engine.resource import (
    Absent,
    Command,
    Container,
    File,
    Image,
    Package,
    Resource,
    Service,
    SupervisorProgram,
)
from roles import docker, paths, relay
from roles.relay.contract import Given, Start
from roles.relay.runners import supervisord
from roles.wiring import wire
from tests.roles.cases import FOLDER, deployable, facts_of, load, plan_of, shipment
from tests.support.facts import DEBIAN_12

UNDONE = {"command:tailnet joined": "command:tailnet left"}  # commands that leave no file of ours
UNIT = f"file:{paths.SYSTEMD}/{paths.SERVICE}"

@pytest.mark.parametrize(
    ("folder", "table"),
    [
        ("programs", relay.PROGRAM_MODULES),
        ("runners", relay.RUNNER_MODULES),
        ("admissions", dict(enumerate(relay.judges()))),
    ],
)
def test_every_module_of_a_folder_is_in_its_table(folder: str, table: Mapping[Any, ModuleType]) -> None:
    names = {path.stem for path in (Path(relay.__file__).parent / folder).glob("*.py")} - {"__init__"}
    modules = {f"{relay.__name__}.{folder}.{name}" for name in names}
    assert {module.__name__ for module in table.values()} == modules


def test_the_long_form_of_a_flavour_makes_the_same_plan() -> None:
    short, long = ((FOLDER / name / "site.yml").read_text() for name in ("docker", "docker-long-form"))
    assert short.replace("flavour: docker", "relay: {program: derper, under: docker}") == long
    assert plan_of("docker-long-form") == plan_of("docker")


@pytest.mark.parametrize(("signal", "reloads"), [("HUP", ["ExecReload=/bin/kill -HUP $MAINPID"]), ("", [])])
def test_systemd_runs_any_program_by_its_start(signal: str, reloads: list[str]) -> None:
    host = inventory.load(FOLDER / "bare" / "site.yml").hosts["hk1"]
    start = Start(
        installed=(),
        artefact="tree:/opt/x",
        reads=("file:/etc/x.key",),
        healthy=Http(url="http://127.0.0.1:81/"),
        command=("/opt/x", "run"),
        flags=(("-name", "a b%"), ("-plain",)),
        reload_signal=signal,
    )
    given = Given(key="command:key", former=(), listens_after=())
    found = relay.RUNNER_MODULES["systemd"].resources(host, wire(host), DEBIAN_12, start, given)
    unit = next(one for one in found if isinstance(one, File) and one.path.endswith("relay.service"))
    assert isinstance(unit.content, bytes)
    lines = unit.content.decode().splitlines()
    at = lines.index("ExecStart=/opt/x run \\")
    assert lines[at + 1 : at + 3] == ['    -name "a b%%" \\', "    -plain"]
    assert [line for line in lines if line.startswith("ExecReload")] == reloads
    service = next(one for one in found if one.id == relay.RUNNER_MODULES["systemd"].RUNNING)
    assert isinstance(service, Service)
    assert {start.artefact, *start.reads} < set(service.restart_on)


def of_the_relay(case: str) -> list[Resource]:
    """Return the relay's own resources: without images, and without Docker and supervisord."""
    site = inventory.load(FOLDER / case / "site.yml")
    (host,) = site.hosts.values()
    facts = facts_of(case)
    resources = roles.compile_host(host, site, facts, shipment(host))
    of_docker = {resource.id for resource in docker.resources(host, facts)}
    own = [resource for resource in resources if resource.role == "relay" and resource.id not in of_docker]
    return [
        resource
        for resource in own
        if not isinstance(resource, Image | Package) and not resource.id.startswith("service:supervisor")
    ]


@pytest.mark.parametrize("case", deployable())
def test_all_of_a_relay_can_be_removed(case: str) -> None:
    gone = {resource.id: resource for resource in compile_plan(relay.absent(), mode="check").resources}
    folders = [resource.path for resource in gone.values() if isinstance(resource, Absent)]
    for resource in of_the_relay(case):
        if isinstance(resource, Service | Container | SupervisorProgram):
            there = gone[resource.id]
            assert isinstance(there, type(resource)) and not there.running
            assert not isinstance(there, Service) or not there.enabled
        elif resource.id in UNDONE:
            assert UNDONE[resource.id] in gone
        else:
            path = resource.creates if isinstance(resource, Command) else getattr(resource, "path", None)
            assert any(f"{path}/".startswith(f"{folder}/") for folder in folders), resource.id


def test_a_relay_is_stopped_before_its_files_are_removed() -> None:
    order = [resource.id for resource in compile_plan(relay.absent(), mode="check").resources]
    last_stop = max(order.index(runner.RUNNING) for runner in relay.RUNNER_MODULES.values())
    files = (paths.RELEASES, paths.CURRENT, paths.KEY, paths.MESH_KEYS)
    assert last_stop < min(order.index(f"absent:{path}") for path in files)
    assert order.index(f"service:{paths.SOCKET}") < order.index(f"absent:{paths.SYSTEMD}/{paths.SOCKET}")


def test_the_removal_of_a_relay_waits_for_its_needs() -> None:
    former = Absent(path="/former")
    resources = [*relay.absent(needs=(former.id,)), former]
    assert compile_plan(resources, mode="check").resources[0].id == former.id


def test_a_relay_that_is_stopped_keeps_its_files() -> None:
    assert {resource.id for resource in relay.stopped(relay.OutOfService.WITHDRAWN)} == {
        f"service:{paths.SERVICE}",
        f"service:{paths.SOCKET}",
        f"container:{paths.CONTAINER}",
        f"program:{supervisord.PROGRAM}",
        # Else supervisord would start it at boot.
        *(f"absent:{path}" for path in supervisord.KNOWN_BY),
        f"file:{paths.WITHDRAWN}",
    }


@pytest.mark.parametrize(
    ("case", "argv"),
    [
        ("bare", ("journalctl", "--unit", "derpfleet-relay.service", "--lines", "20", "--no-pager")),
        ("docker", ("docker", "logs", "--tail", "20", "derpfleet-derper")),
    ],
)
def test_the_command_that_prints_the_log(case: str, argv: tuple[str, ...]) -> None:
    host = inventory.load(FOLDER / case / "site.yml").hosts["hk1"]
    assert relay.chosen_runner(host).log(20) == argv


@pytest.mark.parametrize(
    ("case", "argv"),
    [
        ("bare", ("journalctl", "--unit", paths.SERVICE, "--lines", "5", "--no-pager", "--output", "json",
                  f"DERP_KEY={'ab' * 32}")),
        ("native", ("journalctl", "--unit", paths.SERVICE, "--lines", "500", "--no-pager")),
        ("docker", ("docker", "logs", "--tail", "500", paths.CONTAINER)),
        ("supervisord", ("tail", "--lines", "500", "/var/log/derpfleet/derpfleet-relay.log")),
    ],
)  # fmt: skip
def test_the_log_is_looked_through_for_what_the_program_writes(case: str, argv: tuple[str, ...]) -> None:
    """derper writes no fields to the journal, under whatever runner."""
    host = inventory.load(FOLDER / case / "site.yml").hosts["hk1"]
    assert relay.log_of_client(host, "ab" * 32) == argv


def with_memory(facts: Facts, total_kb: int) -> Facts:
    text = f"MemTotal:        {total_kb} kB\nMemFree:          91232 kB\n"
    fact = FileFact(content=text, sha256="", mode="0444", owner="root", group="root")
    return replace(facts, files={**facts.files, "/proc/meminfo": fact})


def command_of(facts: Facts, **settings: Any) -> tuple[str, str]:
    """Return the unit's command line and the whole unit of a host with these facts."""
    host, site, _ = load("bare")
    host = host.model_copy(update={"relay": host.relay.model_copy(update=settings)})
    (unit,) = [r for r in roles.compile_host(host, site, facts, shipment(host)) if r.id == UNIT]
    assert isinstance(unit, File)
    assert isinstance(unit.content, bytes)
    text = unit.content.decode()
    return text[text.index("ExecStart=") : text.index("ExecReload=")], text


@pytest.mark.parametrize(
    ("total_kb", "ceiling_mib"),
    [(1_004_212, 448), (1_004_999, 448), (16_384_000, 8000), (100_000, 64)],
)
def test_the_relay_refuses_clients_before_the_hosts_memory_is_used_up(
    total_kb: int, ceiling_mib: int
) -> None:
    command, _ = command_of(with_memory(facts_of("bare"), total_kb))
    assert f"-memory-ceiling {ceiling_mib}" in command
    assert "-memory-ceiling" not in command_of(facts_of("bare"))[0]


def test_one_address_may_have_as_many_connections_as_the_site_file_says() -> None:
    assert "-connections-per-address 1024" in command_of(facts_of("bare"))[0]
    assert "-connections-per-address 5000" in command_of(facts_of("bare"), connections_per_address=5000)[0]


@pytest.mark.parametrize("python", ["/opt/python3.12/bin/python3", "/root/.pyenv/versions/3.12/bin/python"])
def test_a_python_whose_libraries_may_be_anywhere_may_run_them(python: str) -> None:
    _, unit = command_of(replace(facts_of("bare"), python_executable=python))
    assert "ExecPaths" not in unit
    assert "SocketBindDeny=any" in unit


def test_a_page_does_not_say_what_answers_here() -> None:
    assert "-home blank" in command_of(facts_of("bare"))[0]


def test_a_container_has_one_capability_and_writes_nowhere_but_in_its_own_memory() -> None:
    host, site, facts = load("docker")
    facts = with_memory(facts, 1_004_212)
    (container,) = [
        r for r in roles.compile_host(host, site, facts, shipment(host)) if isinstance(r, Container)
    ]
    words = " ".join(container.arguments)
    assert re.findall(r"--cap-\w+ \w+", words) == ["--cap-drop ALL", "--cap-add NET_BIND_SERVICE"]
    assert "--read-only --tmpfs /tmp --pids-limit 512 --memory 704m " in words
