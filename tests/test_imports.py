"""Who may import whom. The house stays a house only while this holds (docs/ARCHITECTURE.md)."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from engine.boot import AGENT_MODULES

ROOT = Path(__file__).parent.parent
HOUSE = {"inventory", "engine", "artefacts", "roles", "control", "fleet", "relay", "probe", "lab", "tasks", "lab_tasks"}
MAY = {
    "inventory": set(),
    "engine": {"inventory"},
    "artefacts": {"engine", "inventory"},
    "roles": {
        "engine.resource", "engine.facts", "engine.render", "engine.scripts", "artefacts.shipment", "artefacts.programs.PYTHON_FLOOR",
        "artefacts.image.REPOSITORY", "inventory",
    },
    "control": {"engine.resource", "engine.facts", "inventory"},
    "probe": {"relay", "inventory"},
    "relay": set(),
    "lab": {"artefacts", "engine.cache", "inventory"},
    "fleet": HOUSE - {"tasks", "lab_tasks"},
}
# The relay's rooms, lowest first: each imports only what is before it, for types, too. The modules at its top stand where they are named.
RELAY_FLOORS: tuple[tuple[str, ...], ...] = (
    ("golang",),
    ("core",),
    ("flags", "log", "systemd", "client"),
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
    """Every module that a file imports, in full, wherever the import stands."""
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
    return top not in HOUSE or top == package or any(module == rule or module.startswith(f"{rule}.") for rule in MAY[package])


@pytest.mark.parametrize("package", sorted(MAY))
def test_packages_import_only_what_they_may(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = [f"{path.relative_to(ROOT)}: {module}" for path in files for module in sorted(imported(path)) if not allowed(module, package)]
    assert wrong == []


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_the_relays_core_knows_no_io(room: str) -> None:
    files = sorted((ROOT / "relay" / room).glob("*.py"))
    assert files
    wrong = {path.name: found for path in files if (found := {module.split(".")[0] for module in imported(path)} & IMPURE_MODULES)}
    assert wrong == {}


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
    """For types, too. In core/ session.py, control.py and forward.py are one thought in three files."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "relay").rglob("*.py")
        if path.name != "__init__.py" and path.parent.name != "core"
    }
    needs = {name: {m for m in modules for found in imported(path) if f"{found}.".startswith(f"{m}.")} for name, path in modules.items()}
    assert sum(map(len, needs.values())) > len(needs)
    while loose := {name for name in needs if not needs[name] or not any(name in others for others in needs.values())}:
        needs = {name: others - loose for name, others in needs.items() if name not in loose}
    assert needs == {}  # else what is left are circles, and what lies between two of them


def attributes(node: ast.ClassDef) -> set[str]:
    """Every attribute that a class' own __init__ assigns."""
    inits = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"]
    return {
        target.attr
        for init in inits
        for target in ast.walk(init)
        if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store) and getattr(target.value, "id", "") == "self"
    }


def test_no_class_of_the_relay_has_become_everything() -> None:
    hot = "Session"  # what the loop of `feed` reads; an object more would be a look-up more for each packet
    classes = [
        node for path in (ROOT / "relay").rglob("*.py") for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    ]
    assert {"Relay", "Clients", hot} <= {node.name for node in classes}
    assert {node.name: len(found) for node in classes if len(found := attributes(node)) > 20 and node.name != hot} == {}


def test_the_agent_needs_nothing_but_python() -> None:
    tops = {module.split(".")[0] for path in (ROOT / "files" / "agent").glob("*.py") for module in imported(path)}
    assert tops <= set(sys.stdlib_module_names) | {"agent"}


def test_the_scripts_need_nothing_but_python() -> None:
    paths = list((ROOT / "files" / "scripts").glob("*.py"))
    assert paths
    assert {module.split(".")[0] for path in paths for module in imported(path)} <= set(sys.stdlib_module_names)


def test_the_agents_modules_are_sent_in_the_order_of_their_imports() -> None:
    folder = ROOT / "files" / "agent"
    assert sorted(AGENT_MODULES) == sorted(path.stem for path in folder.glob("*.py"))
    for number, name in enumerate(AGENT_MODULES):
        needed = {module.split(".", 2)[1] for module in imported(folder / f"{name}.py") if module.startswith("agent.")}
        assert needed <= set(AGENT_MODULES[:number]), name


def test_these_files_know_of_ssh() -> None:
    users = [
        str(path.relative_to(ROOT))
        for package in ("engine", "artefacts", "roles", "control", "inventory", "probe")
        for path in (ROOT / package).rglob("*.py")
        if {module.split(".")[0] for module in imported(path)} & {"fabric", "paramiko"}
    ]
    assert sorted(users) == ["engine/eager.py", "engine/known_hosts.py", "engine/login.py", "engine/ssh.py"]
