"""Rules of the house beyond imports (tests/test_imports.py)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest

from control.servers import SERVERS
from inventory.choices import (
    FRONTS,
    AdmissionName,
    ControlName,
    FirewallModeName,
    FrontName,
    PackagesFromName,
    ProgramName,
    RunnerName,
    SourceName,
)
from inventory.model import Site
from roles import certificate, firewall, front, packages, relay
from roles.certificate import challenges, providers
from tests.test_imports import imported
from tests.test_switches import CHOICES

ROOT = Path(__file__).parent.parent
PRODUCT = (
    *("inventory", "engine", "artefacts", "roles", "control", "probe", "fleet", "lab"),
    *("tasks.py", "lab_tasks.py", "operator_tasks.py", "rollout_tasks.py", "service_tasks.py"),
)
CHOICE = re.compile(
    r"(?<!card)\.(flavour|runner|front)$|(^|\.)(host|relay_host)\.program$"
    r"|(^|\.)relay\.(program|under|admission)$|(^|\.)(host|relay_host)\.source$"
    r"|(^|\.)certificate\.(source|challenge|certbot|renewal)$|(^|\.)dns\.provider$"
    r"|(^|\.)(firewall\.mode|docker\.packages|packages\.source|external\.kind|control\.kind)$"
)
HEADSCALE = re.compile(r"(^|[._])site\.headscale$")

# Where a choice is a key into a table of what it implies or of the modules that carry it out.
ROLES = ("certificate", "firewall", "front", "packages", "relay")
TABLES = {"inventory/choices.py", "control/servers.py", *(f"roles/{role}/__init__.py" for role in ROLES)}
TABLES |= {f"roles/certificate/{table}/__init__.py" for table in ("challenges", "providers")}
TABLES |= {"roles/certificate/renewal.py"}
# Files that still compare a choice. This set may only shrink.
COMPARING: set[str] = set()


def choices_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield "compared" or "looked up" and the line, for each place where a choice decides."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts = (node.left, *node.comparators)
            yield from (("compared", node.lineno) for part in parts if _has_choice(part))
        elif isinstance(node, ast.Match) and _has_choice(node.subject):
            yield "compared", node.lineno
        elif isinstance(node, ast.Subscript) and _is_choice(node.slice):
            yield "looked up", node.lineno
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and any(map(_is_choice, node.args))
        ):
            yield "looked up" if node.func.attr == "get" else "compared", node.lineno


def _is_choice(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and bool(CHOICE.search(ast.unparse(node)))


def _has_choice(node: ast.AST) -> bool:
    """Return whether the operand is a choice, or a tuple or list that holds one."""
    return any(map(_is_choice, node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]))


def product_files() -> list[Path]:
    """Return every file of the product that may look at the site."""
    paths = [ROOT / name for name in PRODUCT]
    return [file for path in paths for file in ([path] if path.suffix else sorted(path.rglob("*.py")))]


def places(kind: str) -> set[str]:
    """Return the product's files that compare a choice or look one up."""
    found = {path: {kind for kind, _ in choices_in(ast.parse(path.read_text()))} for path in product_files()}
    return {str(path.relative_to(ROOT)) for path, kinds in found.items() if kind in kinds}


def test_the_rule_knows_every_choice_of_a_host() -> None:
    """But for three. Two are passed on as they are: certbot's own words, and names of mirrors. The
    way of TLS is looked for in the row of its front."""
    keys = {key.replace(".from", ".source") for key in CHOICES}
    unknown = {key for key in keys if not CHOICE.search(f"host.{key}")}
    assert unknown == {"certificate.dns.algorithm", "packages.mirror", "external.tls"}


def test_no_choice_of_the_site_file_is_compared_by_name() -> None:
    """Code asks `inventory.choices` or `roles.wiring`.

    A comparison with a name does not say which question it asks.
    """
    assert places("compared") == COMPARING


def test_choices_are_keys_of_the_tables_only() -> None:
    assert places("looked up") == TABLES


def test_no_code_asks_whether_the_site_has_a_headscale() -> None:
    """Code asks `site.control`, which is never None. Only the model reads the section itself."""
    readers = [
        str(path.relative_to(ROOT))
        for path in product_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and HEADSCALE.search(ast.unparse(node))
    ]
    assert readers == []
    assert HEADSCALE.search("fleet.site.headscale")


CONTROL_HOST = re.compile(r"\bcontrol\.ssh$|^isinstance\(.*\b(Headscale|Paste)\b|^HEADSCALE$|^'headscale'$")
OF_HEADSCALE = ("inventory/", "control/headscale/", "control/servers.py", "lab/")


def asks_for_its_host(tree: ast.AST) -> set[str]:
    """Return the expressions that ask for the control server's host by its name or its kind."""
    kinds = (ast.Attribute, ast.Call, ast.Name, ast.Constant)
    texts = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, kinds)}
    return {text for text in texts if CONTROL_HOST.search(text)}


def test_the_control_servers_hosts_are_asked_for_by_no_name() -> None:
    """`site.control.hosts()` has all of them, and is empty where a person pastes the map."""
    found = {
        str(path.relative_to(ROOT)): asked
        for path in product_files()
        if not str(path.relative_to(ROOT)).startswith(OF_HEADSCALE)
        and (asked := asks_for_its_host(ast.parse(path.read_text())))
    }
    assert found == {}


@pytest.mark.parametrize(
    "text",
    ["control.ssh is None", "isinstance(site.control, Headscale)", "name == HEADSCALE", "x != 'headscale'"],
)
def test_that_rule_finds(text: str) -> None:
    assert asks_for_its_host(ast.parse(text))


def test_every_control_server_has_a_row() -> None:
    kinds = set(get_args(ControlName))
    assert set(SERVERS) == kinds
    assert {model.kind for model in get_args(get_type_hints(Site.control.fget)["return"])} == kinds


MODULES: Mapping[str, tuple[Mapping[Any, Any], ...]] = {
    "certificate": (certificate.MODULES, challenges.MODULES, providers.MODULES),
    "firewall": tuple(dict(enumerate(candidates)) for candidates in firewall.MODES.values()),
    "front": (front.MODULES,),
    "packages": (packages.WAYS,),
    "relay": (relay.PROGRAM_MODULES, relay.RUNNER_MODULES, dict(enumerate(relay.judges()))),
}
TABLES_BY_WORDS: list[tuple[Any, Mapping[Any, Any]]] = [
    (SourceName, certificate.MODULES),
    (FirewallModeName, firewall.MODES),
    (FrontName, front.MODULES),
    (ProgramName, relay.PROGRAM_MODULES),
    (RunnerName, relay.RUNNER_MODULES),
    (PackagesFromName, packages.WAYS),
    (AdmissionName, relay.ADMISSION_MODULES),
]


def place_of(variant: Any) -> str:
    """Return the name of the variant's module: it is one, or a row in one."""
    return str(variant.__name__ if isinstance(variant, ModuleType) else type(variant).__module__)


VARIANTS = {
    role: {place_of(one).removeprefix(f"roles.{role}.") for table in tables for one in table.values()}
    for role, tables in MODULES.items()
}


@pytest.mark.parametrize(("words", "table"), TABLES_BY_WORDS, ids=lambda one: "-".join(get_args(one)))
def test_a_table_has_the_words_of_its_literal(words: Any, table: Mapping[Any, Any]) -> None:
    assert tuple(table) == get_args(words)


def test_the_tables_have_modules_of_their_roles() -> None:
    assert set(VARIANTS) == set(ROLES)
    assert {"acme", "nftables", "own", "nginx", "programs.ours"} <= set().union(*VARIANTS.values())


def test_no_file_outside_a_role_names_a_variant_of_it() -> None:
    """Not even by a detour: a module beside the roles that knew a variant would pass it on."""
    variants = {f"roles.{role}.{name}": role for role, names in VARIANTS.items() for name in names}
    found = [
        (str(path.relative_to(ROOT)), name)
        for path in product_files()
        for name in imported(path)
        for variant, role in variants.items()
        if f"{name}.".startswith(f"{variant}.") and ROOT / "roles" / role not in path.parents
    ]
    assert found == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_knows_no_other_and_a_variant_no_sibling(role: str) -> None:
    """`roles.relay_host` joins the roles, and each role's `__init__` its variants."""
    others = [f"roles.{name}" for name in (*ROLES, "relay_host") if name != role]
    for path in sorted((ROOT / "roles" / role).rglob("*.py")):
        place = ".".join(path.relative_to(ROOT / "roles" / role).with_suffix("").parts)
        beside = [name for name in VARIANTS[role] if not f"{place}.".startswith(f"{name}.")]
        is_table = str(path.relative_to(ROOT)) in TABLES
        siblings = [f"roles.{role}.{name}" for name in beside] if not is_table else []
        refused = [*others, *siblings]
        found = [name for name in imported(path) if any(f"{name}.".startswith(f"{one}.") for one in refused)]
        assert found == [], path


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('host.flavour == "docker"', "compared"),
        ('"none" != self.host.front', "compared"),
        ("host.certificate.source not in ACME", "compared"),
        ("host.firewall.mode.startswith('o') or certificate.source in ('acme',)", "compared"),
        ("(host.flavour, host.front) == ('docker', 'none')", "compared"),
        ('host.relay.program == "derper" or relay.under in ("docker",)', "compared"),
        ('self.host.runner == "docker"', "compared"),
        ("PROGRAMS[host.program]", "looked up"),
        ("('acme',).count(certificate.source)", "compared"),
        ('host.certificate.challenge == "dns" or dns.provider in ("route53",)', "compared"),
        ("match host.front:\n    case _: pass", "compared"),
        ("site.control.kind == 'headscale'", "compared"),
        ("TABLE[host.front]", "looked up"),
        ("TABLE.get(host.certificate.source)", "looked up"),
    ],
)
def test_the_rule_finds(text: str, kind: str) -> None:
    assert {found for found, _ in choices_in(ast.parse(text))} == {kind}


def words_in(tree: ast.AST) -> Iterator[str]:
    """Yield every string of a file that is no docstring."""
    bodies = [node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)]
    alone = {id(node.value) for body in bodies for node in body if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def test_no_program_for_hosts_names_a_front() -> None:
    """The front's role says how it is tested and reloaded, and asks whether it is there."""
    fronts = {front.program for front in FRONTS.values() if front.hides_relay}
    found = {
        (str(path.relative_to(ROOT)), word)
        for path in sorted((ROOT / "files").rglob("*.py"))
        for word in words_in(ast.parse(path.read_text()))
        if any(front in word for front in fronts)
    }
    assert found == set()
    assert list(words_in(ast.parse('"""nginx."""\nx = "nginx -t"\n'))) == ["nginx -t"]


def test_a_contract_is_held_when_its_class_is_made() -> None:
    """An abstract method or a Protocol is; NotImplementedError waits for the first call."""
    found = [
        str(path.relative_to(ROOT))
        for folder in (*PRODUCT, "files", "relay")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "NotImplementedError" in path.read_text()
    ]
    assert found == []


# It must be one line, before any file of ours is on the host.
BOOT_LINE = ("engine/boot.py", "_one_line(_BOOT)")


def programs_in(tree: ast.AST) -> Iterator[str]:
    """Yield the expression behind the `-c` of each Python argv."""
    for node in ast.walk(tree):
        words = node.elts if isinstance(node, ast.List | ast.Tuple) else []
        values = [getattr(word, "value", None) for word in words]
        if "-c" in values[:-1] and {"-I", "-S"} & set(map(str, values)):
            yield ast.unparse(words[values.index("-c") + 1])


def test_programs_for_hosts_are_files() -> None:
    """A linter, types, coverage and the floor of Python reach no text in a string literal."""
    found = {
        (str(path.relative_to(ROOT)), program)
        for path in [*product_files(), *sorted((ROOT / "files").rglob("*.py"))]
        for program in programs_in(ast.parse(path.read_text()))
        if not program.startswith(("script(", "source_of(", "*"))
    }
    assert found == {BOOT_LINE}
