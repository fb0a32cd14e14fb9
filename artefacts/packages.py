"""Packages of a distribution, fetched on the controller and made into one archive for a host.

A host, or another one of its release, has named them with the records of its package lists
(`files/scripts/resolve_debs.py`). So their sums are those that the distribution signed. A package
is kept under its sum, and an index of each release beside them, for hosts without package lists.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from artefacts.offline import BUNDLE_STEP, Offline, before_fetching
from artefacts.release import Release, archive, kept
from engine.cache import Progress, access_to, locked, prune, used, write
from engine.facts import Facts
from engine.plan import sha256
from inventory.errors import DerpfleetError

INDEX = "Packages"  # apt's name of it
SIZE_MAX = 512 << 20  # bytes, of all packages of a host
_COUNT_MAX = 2000
_KEPT = 4 * _COUNT_MAX  # packages, of some releases
_TIMEOUT_S = 60
_FILENAME = re.compile(r"^Filename: .*$", re.M)
_FIELD = re.compile(r"^(Package|Version|Architecture|Size|SHA256|Filename): (\S+)$", re.M)
# A host that was taken over names these: no other service is asked than one that has packages.
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+/[A-Za-z0-9/._+%~-]+\.deb")


class PackagesError(DerpfleetError):
    """The packages of a host cannot be named or fetched."""


@dataclass(frozen=True, kw_only=True)
class Deb:
    """A package of a distribution: where it is fetched, and its record in the package lists."""

    url: str
    record: str

    @property
    def fields(self) -> Mapping[str, str]:
        """Return Package, Version, Architecture, Size, SHA256 and Filename."""
        return dict(_FIELD.findall(self.record))

    @property
    def file(self) -> str:
        """Return the name of its file, which is its sum."""
        return f"{self.fields['SHA256']}.deb"


def parsed(text: str) -> list[Deb]:
    """Return the packages that a host has named. Raises PackagesError."""
    try:
        found = [Deb(url=each["url"], record=each["record"]) for each in json.loads(text)["files"]]
        for one in found:
            if not (_URL.fullmatch(one.url) and len(one.fields) == 6 and "\n\n" not in one.record):
                raise ValueError(f"{one.url} is no package")
            if not re.fullmatch(r"[0-9a-f]{64}", one.fields["SHA256"]):
                raise ValueError(f"{one.url} has no sum")
        if len(found) > _COUNT_MAX or sum(int(one.fields["Size"]) for one in found) > SIZE_MAX:
            raise ValueError(f"they are more than {_COUNT_MAX} packages, or {SIZE_MAX >> 20} MiB")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PackagesError("the host's list of packages makes no sense", why=str(error)[:500]) from error
    return found


def fetched(debs: Iterable[Deb], *, cache: Path, progress: Progress) -> list[Path]:
    """Return the files of the packages. Each is fetched at most once, and compared with its sum.

    Raises Offline and PackagesError.
    """
    folder = cache / "packages"
    with locked(folder / ".lock"):
        found = [used(_fetched(one, folder, progress)) for one in debs]
        prune(folder, "*.deb*", most=_KEPT)
    return found


def packed(debs: Sequence[Deb], *, cache: Path, progress: Progress) -> Release:
    """Return the archive of these packages with an index: a source of packages, once unpacked.

    Raises Offline and PackagesError.
    """
    paths = fetched(debs, cache=cache, progress=progress)
    files = {path.name: path for path in paths}
    index = "\n".join(_FILENAME.sub(f"Filename: ./{one.file}", one.record) for one in debs)

    def make() -> bytes:
        return archive({INDEX: index.encode(), **{name: path.read_bytes() for name, path in files.items()}})

    return kept(cache, "packages", sha256(index.encode())[:16], make)


def keep_index(facts: Facts, debs: Sequence[Deb], *, cache: Path) -> Path:
    """Keep the packages of a release for hosts that cannot name them. Return the file."""
    path = _index_path(facts, cache)
    files = [{"url": one.url, "record": one.record} for one in debs]
    with access_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps({"files": files}, indent=1).encode())
    return path


def has_index(facts: Facts, *, cache: Path) -> bool:
    """Whether the packages of the host's release are kept."""
    return _index_path(facts, cache).exists()


def from_index(
    facts: Facts, names: Sequence[str], installed: Mapping[str, str], *, cache: Path
) -> list[Deb]:
    """Return the packages of the kept index that the host has not in the same version.

    Raises Offline when the index lacks one of `names`.
    """
    path = _index_path(facts, cache)
    debs = parsed(path.read_text()) if path.exists() else []
    known = {one.fields["Package"] for one in debs}
    if missing := [name for name in names if name not in known]:
        system = f"{facts.os_id} {facts.os_version} ({facts.arch})"
        what = f"the packages {', '.join(missing)} of {system} are not at hand"
        raise Offline(what, why=f"no bundle with packages of {system} was used here", next=BUNDLE_STEP)
    return [one for one in debs if installed.get(one.fields["Package"]) != one.fields["Version"]]


def _index_path(facts: Facts, cache: Path) -> Path:
    return cache / "packages" / f"{facts.os_id}-{facts.os_version}-{facts.arch}.json"


def _fetched(deb: Deb, folder: Path, progress: Progress) -> Path:
    path, size = folder / deb.file, int(deb.fields["Size"])
    if path.exists() and sha256(path) == deb.fields["SHA256"]:
        return path
    before_fetching(f"the package {deb.fields['Package']} {deb.fields['Version']}")
    progress(f"fetching {deb.fields['Package']} ({size / 1e6:.1f} MB)")
    content = _get(deb.url, size)
    if sha256(content) != deb.fields["SHA256"]:
        raise PackagesError(
            f"the package {deb.fields['Package']} is not the one that the distribution signed",
            where=deb.url,
            why=f"its sha256 is {sha256(content)}, not {deb.fields['SHA256']}",
            next="let another mirror serve the host's sources, or ask again when that server is whole",
        )
    with access_to(folder):
        write(path, content)
    return path


def _get(url: str, size: int) -> bytes:
    """Return `size` bytes of the answer, one more if it is longer. Raises PackagesError."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - parsed() checks it
            return bytes(answer.read(size + 1))
    except urllib.error.HTTPError as error:
        why = f"HTTP {error.code}"
        error.close()
    except (OSError, HTTPException, ValueError) as error:
        why = str(getattr(error, "reason", "") or error)
    step = "check that this machine reaches that server; http_proxy and https_proxy count"
    raise PackagesError("a package cannot be fetched", where=url, why=why, next=step)
