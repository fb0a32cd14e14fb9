"""The controller: its Python, its locked packages, its disk, and the source of Go modules."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path

from artefacts.offline import VARIABLE, is_offline
from fleet.doctor.diagnosis import CONTROLLER, Diagnosis
from fleet.shared.fleet import Fleet
from inventory.checkout import CACHE, CHECKOUT
from inventory.choices import program_of

LOCK = CHECKOUT / "requirements" / "controller.lock"
_PIN = re.compile(r"^([\w.-]+)==([^\s;\\]+)\s*(;)?", re.M)
ENOUGH, NEEDED = 2 << 30, 64 << 20  # bytes: a toolchain with its modules; a run's records
_PROXY = "https://proxy.golang.org"  # Go's own default
_MODULE = "tailscale.com/@latest"  # derper's
_PROXY_S = 5.0


def diagnoses(fleet: Fleet) -> list[Diagnosis]:
    """Return the diagnoses about this machine."""
    place = next(path for path in (CACHE, *CACHE.parents) if path.exists())
    builds_go = any(not program_of(host).is_python for host in fleet.site.hosts.values())
    return [
        packages(LOCK.read_text(), installed),
        disk(shutil.disk_usage(place).free, place),
        _unasked("no host of the site runs a Go program") if not builds_go
        else _unasked(f"{VARIABLE} is set") if is_offline()
        else go_proxy(os.environ, asked),
    ]


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
        return Diagnosis(
            host=CONTROLLER, check="Python", status="ok", what=f"{python}, {len(pins)} packages as locked"
        )
    return Diagnosis(
        host=CONTROLLER,
        check="Python",
        status="warning",
        what=f"{python}, and {len(wrong)} packages are not as locked: {'; '.join(wrong)}",
        why="derpfleet was tested with the locked ones only",
        next=f"pip install --no-deps --require-hashes -r {LOCK.relative_to(CHECKOUT)}",
    )


def disk(free: int, place: Path) -> Diagnosis:
    """Judge the free bytes of the disk that holds the cache and the records."""
    what = f"{free / 1e9:.1f} GB are free at {place}"
    if free >= ENOUGH:
        return Diagnosis(host=CONTROLLER, check="disk", status="ok", what=what)
    return Diagnosis(
        host=CONTROLLER,
        check="disk",
        status="warning" if free >= NEEDED else "failed",
        what=what,
        why="releases, wheels and Go programs are built below .cache, and each run is logged below .runs",
        next="remove .cache, which is made again, or make room",
    )


def asked(url: str) -> str:
    """Return why a URL does not answer, or ""."""
    try:
        with urllib.request.urlopen(url, timeout=_PROXY_S) as answer:  # noqa: S310 - go_proxy checks it
            answer.read(1)
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        return str(getattr(error, "reason", "") or error)
    return ""


def go_proxy(environment: Mapping[str, str], asked: Callable[[str], str]) -> Diagnosis:
    """Judge whether Go's modules can be fetched, from the first place that $GOPROXY names."""
    first = re.split(r"[,|]", environment.get("GOPROXY") or _PROXY)[0].strip()
    if not first.startswith(("https://", "http://")):
        off, why = first == "off", "derper is built here from Go modules, unless it is in .cache already"
        return Diagnosis(
            host=CONTROLLER,
            check="Go modules",
            status="warning" if off else "skipped",
            what="GOPROXY is off: no module is fetched" if off else f"GOPROXY begins with {first}",
            why=why if off else "",
            next=f"GOPROXY={_PROXY}, or a mirror of it" if off else "",
        )
    trouble = asked(f"{first.rstrip('/')}/{_MODULE}")
    if not trouble:
        return Diagnosis(host=CONTROLLER, check="Go modules", status="ok", what=f"{first} answers")
    return Diagnosis(
        host=CONTROLLER,
        check="Go modules",
        status="warning",
        what=f"{first} does not answer: {trouble}",
        why="derper is built here from Go modules, unless it is in .cache already",
        next="set GOPROXY to a mirror that answers, such as https://goproxy.cn, and ask again",
    )


def _unasked(words: str) -> Diagnosis:
    return Diagnosis(host=CONTROLLER, check="Go modules", status="skipped", what=words)
