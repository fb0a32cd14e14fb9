"""The controller: its Python, its locked packages, its disk, and the source of Go modules."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from artefacts import go
from artefacts.offline import VARIABLE, is_offline
from fleet.doctor.diagnosis import CONTROLLER, Diagnosis, Status, of_error
from fleet.shared.fleet import Fleet
from inventory.checkout import CACHE, CHECKOUT
from inventory.choices import program_of

LOCK = CHECKOUT / "requirements" / "controller.lock"
_PIN = re.compile(r"^([\w.-]+)==([^\s;\\]+)\s*(;)?", re.M)
ENOUGH, NEEDED = 2 << 30, 64 << 20  # bytes: a toolchain with its modules; a run's records
_MODULE = "tailscale.com/@latest"  # derper's
_PROXY_S = 5.0
_GO = "Go modules"


def diagnoses(fleet: Fleet) -> list[Diagnosis]:
    """Return the diagnoses about this machine."""
    place = next(path for path in (CACHE, *CACHE.parents) if path.exists())
    ours = [host for host in fleet.site.hosts.values() if host.managed]
    builds_go = any(not program_of(host).is_python for host in ours)
    return [
        packages(LOCK.read_text(), installed),
        disk(shutil.disk_usage(place).free, place),
        _here(_GO, "skipped", "no host of the site runs a Go program") if not builds_go
        else _here(_GO, "skipped", f"{VARIABLE} is set") if is_offline()
        else _go_modules(),
    ]


def _here(check: str, status: Status, what: str, *, why: str = "", next: str = "") -> Diagnosis:
    return Diagnosis(host=CONTROLLER, check=check, status=status, what=what, why=why, next=next)


def installed(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages(lock: str, installed: Callable[[str], str | None]) -> Diagnosis:
    """Compare the installed packages with the lock. Those of another system may be missing."""
    pins: dict[str, set[str]] = {}
    needed: set[str] = set()
    for name, version, marker in _PIN.findall(lock):
        pins.setdefault(name, set()).add(version)
        if not marker:
            needed.add(name)
    wrong = [
        f"{name} is {found or 'missing'}, locked is {' or '.join(sorted(versions))}"
        for name, versions in pins.items()
        if (found := installed(name)) not in versions and (found or name in needed)
    ]
    python = f"Python {platform.python_version()}"
    if not wrong:
        return _here("Python", "ok", f"{python}, {len(pins)} packages as locked")
    return _here(
        "Python",
        "warning",
        f"{python}, and {len(wrong)} packages are not as locked: {'; '.join(wrong)}",
        why="derpfleet was tested with the locked ones only",
        next=f"pip install --no-deps --require-hashes -r {LOCK.relative_to(CHECKOUT)}",
    )


def disk(free: int, place: Path) -> Diagnosis:
    """Judge the free bytes of the disk that holds the cache and the records."""
    what = f"{free / 1e9:.1f} GB are free at {place}"
    if free >= ENOUGH:
        return _here("disk", "ok", what)
    return _here(
        "disk",
        "warning" if free >= NEEDED else "failed",
        what,
        why="releases, wheels and Go programs are built below .cache, and each run is logged below .runs",
        next="remove .cache, which is made again, or make room",
    )


def asked(url: str) -> str:
    """Return why a URL does not answer, or ""."""
    try:
        with urllib.request.urlopen(url, timeout=_PROXY_S) as answer:  # noqa: S310 - go_modules checks it
            answer.read(1)
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        return str(getattr(error, "reason", "") or error)
    return ""


def _go_modules() -> Diagnosis:
    try:
        return go_modules(go.module_sources(cache=CACHE), asked)
    except go.GoError as error:
        return of_error(CONTROLLER, _GO, error)


def go_modules(sources: str, asked: Callable[[str], str]) -> Diagnosis:
    """Judge whether Go's modules can be fetched, from the first of the sources.

    `sources`: as GOPROXY lists them; "": not known yet.
    """
    first = re.split(r"[,|]", sources)[0].strip()
    if not first:
        words = "the Go toolchain, which knows their source, is unpacked by the first build"
        return _here(_GO, "skipped", words)
    why = "derper is built here from Go modules, unless it is in .cache already"
    if first == "off":
        words = "GOPROXY is off: no module is fetched"
        return _here(_GO, "warning", words, why=why, next="unset GOPROXY, or set it to a mirror")
    if not first.startswith(("https://", "http://")):
        return _here(_GO, "skipped", f"GOPROXY begins with {first}")
    trouble = asked(f"{first.rstrip('/')}/{_MODULE}")
    if not trouble:
        return _here(_GO, "ok", f"{first} answers")
    words = f"{first} does not give {_MODULE}: {trouble}"
    return _here(_GO, "warning", words, why=why, next="set GOPROXY to a mirror that has it, and ask again")
