"""Releases: a program with its locked wheels, as archives for a host's Python.

The host needs no pip and no index. The archives hold what an unpacked `site-packages` would, and a
`__main__.py`: `python3 -I DIRECTORY` runs it. Each wheel is an archive of its own. The host keeps
these, so that another program, or a release with other sources, need not bring them again. Same
inputs, same bytes. The name on the host comes from the bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from artefacts.offline import before_fetching
from artefacts.programs import Artefact
from engine.cache import locked, prune, used, write
from engine.facts import Facts
from engine.plan import sha256
from inventory.checkout import CHECKOUT
from inventory.errors import DerpfleetError

_FORMAT = "2"  # raise it to make another archive from the same inputs
_WHEELS = "wheels.sha256"  # names the archives of the wheels, so that a release changes with them
_OLDEST_GLIBC_MINOR = 17  # manylinux2014
_NEWEST_GLIBC_MINOR = 200  # a tag for each minor version: a host must not ask for millions
_NEVER_RUN = (".pyx", ".pxd", ".pxi", ".pyi", ".c", ".h")


class ReleaseError(DerpfleetError):
    """The controller cannot make a release."""


@dataclass(frozen=True)
class Release:
    """A release that was made: a tar.gz on the controller, and its hex digest.

    `shared`: the archives that belong to it and that others may have as well.
    """

    path: Path
    sha256: str
    shared: tuple[Path, ...] = ()

    @property
    def id(self) -> str:
        """Return the name of its directory on the host."""
        return self.sha256[:16]


def build_release(
    program: Artefact,
    facts: Facts,
    *,
    cache: Path,
    progress: Callable[[str], None] = lambda text: None,
) -> Release:
    """Return the release of `program` for the host's Python, architecture and C library.

    It is made at most once.
    Raises Offline, and ReleaseError for a platform that is not known, or a wheel that pip lacks.
    """
    shared = [_shared(wheel, cache) for wheel in wheels(program, facts, cache=cache, progress=progress)]
    sources = _sources(CHECKOUT, program.packages)
    files = {"__main__.py": program.main.encode(), **sources, _WHEELS: _sums(shared)}

    def make() -> bytes:
        progress(f"building the {program.name} release for Python {_python(facts)} on {facts.arch}")
        return archive(files)

    made = kept(cache, program.name, _key(program, files), make)
    return replace(made, shared=tuple(one.path for one in shared))


def _shared(wheel: Path, cache: Path) -> Release:
    """Return the archive of a wheel's files. It is made at most once."""
    project = wheel.name.partition("-")[0]
    key = f"{_FORMAT}-{sha256(wheel)[:16]}"
    return kept(cache, f"wheel-{project}", key, lambda: archive(unpacked(wheel)))


def _sums(releases: Sequence[Release]) -> bytes:
    """Return the sums of archives, as `sha256sum` prints them."""
    return "".join(f"{one.sha256}  {one.path.name}\n" for one in releases).encode()


def wheels(
    program: Artefact, facts: Facts, *, cache: Path, progress: Callable[[str], None] = lambda text: None
) -> list[Path]:
    """Return the wheels of the host's release of `program`. They are fetched at most once.

    Raises Offline, and ReleaseError as `build_release` does.
    """
    platforms, python = wheel_platforms(facts), _python(facts)
    lock = locked_for(CHECKOUT / "requirements" / program.lock, marker_environment(facts))

    def download(folder: Path) -> None:
        progress(f"fetching the wheels of {program.name} for Python {python} on {facts.arch}")
        _download(folder, lock, python, platforms)

    with locked(cache / "releases" / ".lock"):
        return _wheels(cache / "wheels", lock, (python, *platforms), download)


def _python(facts: Facts) -> str:
    return ".".join(map(str, facts.python[:2]))


def kept(cache: Path, name: str, key: str, make: Callable[[], bytes]) -> Release:
    """Return the release of this name and key, whose archive `make` returns. It is made once."""
    folder = cache / "releases"
    with locked(folder / ".lock"):
        path = _made(folder, f"{name}-{key}")
        if path is None:
            content = make()
            path = folder / f"{name}-{key}-{sha256(content)[:16]}.tar.gz"
            write(path, content)
            prune(folder, f"{name}-*")
        return Release(used(path), sha256(path))


def made(cache: Path, name: str, key: str) -> Release | None:
    """Return the release of this name and key, or None if it has to be made."""
    folder = cache / "releases"
    with locked(folder / ".lock"):
        path = _made(folder, f"{name}-{key}")
    return Release(used(path), sha256(path)) if path else None


def _made(folder: Path, name: str) -> Path | None:
    """Return the release that was made under this name; None if there is none.

    A release whose content does not match its file's name is removed.
    """
    for path in folder.glob(f"{name}-*.tar.gz"):
        if path.name == f"{name}-{sha256(path)[:16]}.tar.gz":
            return path
        path.unlink()
    return None


def wheel_platforms(facts: Facts) -> tuple[str, ...]:
    """Return the platform tags that the host accepts, best first (PEP 600).

    Raises ReleaseError for a host that has no wheels.
    """
    libc, version = facts.libc
    if libc != "glibc":
        raise ReleaseError(
            "no wheels for this host's C library",
            why=f"it has {libc or 'no glibc'}, and releases are made for glibc",
            next="use flavour: docker with certificate.certbot: distribution",
        )
    found = re.fullmatch(r"2\.([1-9][0-9]{0,2})(\..*)?", version)
    if found is None or int(found[1]) > _NEWEST_GLIBC_MINOR:
        raise ReleaseError(
            "no wheels for this host's C library",
            why=f"its glibc calls itself {version!r}, which is none of 2.1 to 2.{_NEWEST_GLIBC_MINOR}",
            next="look at the output of `ldd --version` on the host",
        )
    minor = int(found[1])
    tags = [f"manylinux_2_{number}_{facts.arch}" for number in range(minor, _OLDEST_GLIBC_MINOR - 1, -1)]
    return (*tags, f"manylinux2014_{facts.arch}")


def marker_environment(facts: Facts) -> dict[str, str]:
    """Return the host's environment for requirement markers (PEP 508).

    pip itself evaluates markers for the Python that runs pip.
    """
    full = ".".join(map(str, facts.python))
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": facts.arch,
        "platform_python_implementation": "CPython",
        "platform_release": facts.kernel,
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": full,
        "python_version": ".".join(map(str, facts.python[:2])),
        "sys_platform": "linux",
    }


def locked_for(lock: Path, environment: Mapping[str, str]) -> str:
    """Return the lines of a lock that apply in `environment`, each on one line with its hashes.

    The markers are removed. Raises ReleaseError.
    """
    lines = []
    for line in lock.read_text().replace("\\\n", " ").splitlines():
        text, *hashes = line.split(" --hash=")
        if not text.strip() or text.startswith("#"):
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise ReleaseError(f"{lock.name} cannot be read", why=str(error)) from error
        if requirement.marker is None or requirement.marker.evaluate(dict(environment)):
            pinned = f"{requirement.name}{requirement.specifier}"
            lines.append(" --hash=".join([pinned, *(item.strip() for item in hashes)]))
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=8)
def _sources(checkout: Path, packages: tuple[str, ...]) -> Mapping[str, bytes]:
    """Return the sources of these packages. All hosts of a run get those that the first one got."""
    found = {}
    for package in packages:
        for path in sorted((checkout / package).rglob("*.py")):
            found[str(path.relative_to(checkout))] = path.read_bytes()
    return found


def _key(program: Artefact, files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for part in (_FORMAT, program.name):
        digest.update(part.encode() + b"\0")
    for name, content in files.items():
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def _wheels(
    folder: Path, lock: str, tags: tuple[str, ...], download: Callable[[Path], None]
) -> list[Path]:
    """Return the wheels of `lock`. They are kept: the program's own sources change more often."""
    key = hashlib.sha256("\0".join((lock, *tags)).encode()).hexdigest()[:16]
    kept = folder / key
    kept.mkdir(parents=True, exist_ok=True)
    wanted = [line.split(" --hash=sha256:")[1:] for line in lock.split("\n") if line]
    wheels = kept.glob("*.whl")
    whole = [path for path in wheels if any(sha256(path) in hashes for hashes in wanted)]
    for path in {*kept.iterdir()}.difference(whole):
        path.unlink()
    if len(whole) < len(wanted):
        download(kept)
        prune(folder, "*")
    return sorted(used(kept).glob("*.whl"))


def _download(folder: Path, lock: str, python: str, platforms: tuple[str, ...]) -> None:
    """Fetch the wheels of `lock`; pip checks their hashes. Raises Offline, ReleaseError."""
    before_fetching(f"a wheel of the locks for Python {python} on {platforms[0]}")
    requirements = folder / "requirements.txt"
    requirements.write_text(lock)
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    argv += ["--no-input", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    argv += ["--implementation", "cp", "--python-version", python]
    argv += [word for tag in platforms for word in ("--platform", tag)]
    argv += ["--dest", str(folder), "--requirement", str(requirements)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(
            f"pip found no wheels for Python {python} on {platforms[0]}",
            where="artefacts/release.py",
            why="\n".join(done.stderr.strip().splitlines()[-6:]),
            next=(
                "check that this machine reaches a package index (pip's own settings count), "
                "then run the command again"
            ),
        )


def unpacked(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel that are needed to run it.

    These are no sources of compiled modules, type stubs, tests, scripts or headers. Raises
    ReleaseError for a name that leads elsewhere.
    """
    found = {}
    with zipfile.ZipFile(wheel) as content:
        for name in content.namelist():
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise ReleaseError(
                    f"{wheel.name} would write outside of its folder",
                    why=f"it has a file called {name!r}",
                    next="do not use this wheel: report it to its index, and change the lock",
                )
            top, *rest = name.split("/")
            if top.endswith(".data"):  # <name>.data/{purelib,platlib,scripts,headers,data}/…
                if rest[0] not in ("purelib", "platlib"):
                    continue
                name = "/".join(rest[1:])  # noqa: PLW2901
            if not name.endswith(("/", *_NEVER_RUN)) and "tests" not in rest:
                found[name] = content.read(name if not top.endswith(".data") else f"{top}/{'/'.join(rest)}")
    return found


def archive(files: Mapping[str, bytes], mode: int = 0o644) -> bytes:
    """Return a tar.gz whose bytes depend only on `files` and their mode."""
    out = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(files):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(files[name]), mode, 0
            tar.addfile(info, io.BytesIO(files[name]))
    return out.getvalue()
