"""The documents name files, commands and headings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import roles
import tasks
from tests.test_imports import ROOT

WRITTEN_LATER = {"inventory/site.yml"}  # by `invoke init`
CODE = re.compile(r"^```.*?^```|^    .*?$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"(?<![\w/.~*$-])\w[\w./-]*\.(?:py|md|go|sh|toml|yml|in|lock|j2|txt)\b(?![\w/*])")
FOLDER = re.compile(r"`(\w[\w./-]*/)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"\binvoke ([a-z][a-z.]*)([^`|\n#·]*)")
MODULE = re.compile(r"\bpython3? -m ([a-z]\w*(?:\.\w+)*)")


def shown(folder: Path) -> list[Path]:
    """Return the files below a folder, without those that Git does not see."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith((".", "__")):
            found += shown(path)
        elif path.is_file():
            found.append(path)
    return found


FILES = {path.relative_to(ROOT) for path in shown(ROOT)}
FOLDERS = {parent for path in FILES for parent in path.parents}
DOCUMENTS = sorted(path for path in FILES if path.suffix == ".md")
TOP = {path.parts[0] for path in FILES}


def exists(name: str, document: Path) -> bool:
    """Whether a document may name this file or folder.

    A name that begins at the top of the checkout is meant from there, or from the document's
    folder. Every other one is the end of a path.
    """
    wanted, known = Path(name), FOLDERS if name.endswith("/") else FILES
    if name in WRITTEN_LATER or document.parent / wanted in known or wanted in known:
        return True
    parts = wanted.parts
    return parts[0] not in TOP and any(path.parts[-len(parts) :] == parts for path in known)


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_path_that_is_named_exists(document: Path) -> None:
    text = (ROOT / document).read_text()
    named = {match[0] for match in FILE.finditer(text)} | set(FOLDER.findall(text))
    assert sorted(name for name in named if not exists(name, document)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for target in LINK.findall((ROOT / document).read_text()):
        place, _, anchor = target.partition("#")
        if "://" in target:
            continue
        path = ROOT / document.parent / place if place else ROOT / document
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_command_is_one_that_exists(document: Path) -> None:
    text = (ROOT / document).read_text()
    wrong = []
    for verb, rest in COMMAND.findall(text):
        known = tasks.namespace.task_names
        if verb not in known:
            wrong.append(f"invoke {verb}")
            continue
        arguments = tasks.namespace[verb].get_arguments()
        options = {option for argument in arguments for option in long_options(argument.names)}
        given = re.findall(r"--[\w-]+", rest)
        wrong += [f"invoke {verb} {option}" for option in given if option not in options]
        wrong += [role for role in re.findall(r"role:([a-z]+)", rest) if role not in roles.ROLES]
    assert wrong == []


def long_options(names: tuple[str, ...]) -> list[str]:
    """Return the long options for an argument's names."""
    return [f"--{name.replace('_', '-')}" for name in names]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_module_to_run_exists(document: Path) -> None:
    missing = []
    for module in set(MODULE.findall((ROOT / document).read_text())) - {"venv"}:
        place = module.replace(".", "/")
        if not {Path(f"{place}.py"), Path(place, "__main__.py")} & FILES:
            missing.append(module)
    assert missing == []


def test_the_rules_find() -> None:
    document = Path("docs/ARCHITECTURE.md")
    assert not exists("relay/stun.py", document) and not exists("relay/nothing/", document)
    assert exists("relay/core/stun.py", document) and exists("core/stun.py", document)
    assert exists("core/", document)
    assert FILE.findall("`/etc/x.yml` and `http://a.b/x.py`") == []
    assert "--host" in long_options(("host", "h"))
    assert COMMAND.findall("`invoke deploy --hots hk1`") == [("deploy", " --hots hk1")]
    assert anchors("## Where is it?\n```\n# no heading\n```\n") == {"where-is-it"}
