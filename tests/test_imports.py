"""The order of the folders: the imports that each may have (docs/ARCHITECTURE.md)."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from engine.boot import agent_modules

ROOT = Path(__file__).parent.parent
HOUSE = {
    *("inventory", "engine", "artefacts", "roles", "control", "fleet", "relay", "probe", "lab"),
    *("tasks", "lab_tasks", "operator_tasks", "rollout_tasks", "service_tasks"),
}
MAY = {
    "inventory": set(),
    "engine": {"inventory"},
    "artefacts": {"engine", "inventory"},
    "roles": {
        "engine.resource", "engine.policy", "engine.health", "engine.facts", "engine.render",
        "engine.scripts", "engine.package_source",
        "artefacts.shipment", "artefacts.programs.PYTHON_FLOOR", "artefacts.programs.DERPER",
        "artefacts.programs.TAILSCALED", "artefacts.image.REPOSITORY", "inventory",
    },
    # It describes questions and jobs, and shows what happens; it opens no session and runs no job.
    # Go's durations have one reader, which the relay is shipped with.
    "control": {
        "engine.resource", "engine.health", "engine.facts", "engine.scripts", "engine.plan.Mode",
        "engine.report.Report", "engine.crash", "inventory", "relay.golang.flag.parse_duration",
        *(f"engine.run.{name}" for name in ("Job", "Outcome", "Verb")),
    },
    "probe": {"relay", "control.served", "inventory"},
    "relay": set(),
    "lab": {"artefacts", "engine.cache", "inventory"},
    "fleet": HOUSE - {"tasks", "lab_tasks", "operator_tasks", "rollout_tasks", "service_tasks"},
}
# The relay's folders and the modules at its top, lowest first. Each imports only what is before it,
# for types as well.
RELAY_FLOORS: tuple[tuple[str, ...], ...] = (
    ("golang",),
    ("core",),
    ("config", "flags", "log", "systemd", "client", "connection"),
    ("keys",),
    ("http",),
    ("io",),
    ("admission",),
    ("mesh",),
    ("observe",),
    ("sweep", "drain", "frontcheck", "selftest", "tasks"),
    ("clients",),
    ("reload",),
    ("server",),
    ("__main__",),
)
PURE_ROOMS = ("golang", "core", "http")
IMPURE_MODULES = {"asyncio", "socket", "ssl", "time", "logging", "os"}


def imported(path: Path) -> set[str]:
    """Return every module that a file imports, in full, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def allowed(module: str, package: str) -> bool:
    top = module.split(".", maxsplit=1)[0]
    if top not in HOUSE or top == package:
        return True
    return any(module == rule or module.startswith(f"{rule}.") for rule in MAY[package])


@pytest.mark.parametrize("package", sorted(MAY))
def test_packages_import_only_what_they_may(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = [(path, module) for path in files for module in sorted(imported(path))]
    wrong = [(str(path), module) for path, module in found if not allowed(module, package)]
    assert wrong == []


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_the_relays_core_knows_no_io(room: str) -> None:
    files = sorted((ROOT / "relay" / room).glob("*.py"))
    assert files
    tops = {path.name: {module.split(".")[0] for module in imported(path)} for path in files}
    assert {name: found & IMPURE_MODULES for name, found in tops.items() if found & IMPURE_MODULES} == {}


def test_a_rollouts_machine_knows_no_io() -> None:
    files = sorted((ROOT / "engine" / "rollout").glob("*.py"))
    assert len(files) > 3
    impure = IMPURE_MODULES | {"threading", "random", "datetime"}
    found = {path.name: {module.split(".")[0] for module in imported(path)} & impure for path in files}
    assert not any(found.values()), found


def test_the_relays_core_is_what_coverage_is_asked_of() -> None:
    coverage = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    assert set(coverage["run"]["include"]) == {f"relay/{room}/*" for room in PURE_ROOMS}
    assert coverage["report"]["fail_under"] == 100


def test_the_relays_rooms_import_only_downward() -> None:
    floor = {name: number for number, names in enumerate(RELAY_FLOORS) for name in names}
    wrong = []
    for path in sorted((ROOT / "relay").rglob("*.py")):
        room = path.relative_to(ROOT / "relay").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for module in sorted(imported(path)):
            above, _, name = module.partition(".")
            name = name.partition(".")[0]
            if above == "relay" and name in floor and name != room and floor[name] > floor[room]:
                wrong.append(f"{path.relative_to(ROOT)}: {module}")
    assert wrong == []


def test_the_relays_imports_have_no_circle_but_in_its_core() -> None:
    """Not even for types. session.py, control.py and forward.py in core/ are one thought."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "relay").rglob("*.py")
        if path.name != "__init__.py" and path.parent.name != "core"
    }
    needs = {
        name: {other for other in modules for found in imported(path) if f"{found}.".startswith(f"{other}.")}
        for name, path in modules.items()
    }
    assert sum(map(len, needs.values())) > len(needs)
    while loose := {name for name in needs if not needs[name] or name not in set().union(*needs.values())}:
        needs = {name: others - loose for name, others in needs.items() if name not in loose}
    assert needs == {}  # else circles remain, and the modules between two of them


def test_the_agent_needs_nothing_but_python() -> None:
    paths = list((ROOT / "files" / "agent").glob("*.py"))
    tops = {module.split(".")[0] for path in paths for module in imported(path)}
    assert tops <= set(sys.stdlib_module_names) | {"agent"}


def test_the_scripts_need_nothing_but_python() -> None:
    paths = list((ROOT / "files" / "scripts").glob("*.py"))
    assert paths
    tops = {path.stem: {module.split(".")[0] for module in imported(path)} for path in paths}
    # It goes on in dnf's own Python, and says so where there is none.
    tops["resolve_rpms"].remove("dnf")
    assert {name: found for name, found in tops.items() if not found <= set(sys.stdlib_module_names)} == {}


def test_the_agents_modules_are_sent_in_the_order_of_their_imports() -> None:
    folder = ROOT / "files" / "agent"
    names = list(agent_modules())
    assert sorted(names) == sorted(path.stem for path in folder.glob("*.py"))
    for number, name in enumerate(names):
        modules = imported(folder / f"{name}.py")
        needed = {module.split(".", 2)[1] for module in modules if module.startswith("agent.")}
        assert needed <= set(names[:number]), name


def test_these_files_know_of_ssh() -> None:
    users = [
        str(path.relative_to(ROOT))
        for package in ("engine", "artefacts", "roles", "control", "inventory", "probe")
        for path in (ROOT / package).rglob("*.py")
        if {module.split(".")[0] for module in imported(path)} & {"fabric", "paramiko"}
    ]
    names = ("eager", "known_hosts", "ssh", "ssh_agent", "ssh_config", "ssh_errors")
    assert sorted(users) == [f"engine/{name}.py" for name in names]
