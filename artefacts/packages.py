"""Packages of a distribution, fetched on the controller and made into one archive for a host.

A host, or another one of its release, has named them with the records of its package lists
(`files/scripts/resolve_debs.py` and `resolve_rpms.py`), and so with their sums. A package is kept
under its sum, and an index of each release beside them, for hosts without package lists.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path

from artefacts.debs import Deb
from artefacts.offline import BUNDLE_STEP, Offline, before_fetching
from artefacts.packaged import Packaged
from artefacts.release import Release, archive, kept
from artefacts.rpms import Rpm
from engine.cache import Progress, access_to, locked, prune, used, write
from engine.facts import Facts
from engine.plan import sha256
from inventory.errors import DerpfleetError

SIZE_MAX = 512 << 20  # bytes, of all packages of a host
_COUNT_MAX = 2000
_KEPT = 4 * _COUNT_MAX  # packages, of some releases
_TIMEOUT_S = 60
# A host that was taken over names these: no other service is asked than one that has packages.
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+/[A-Za-z0-9/._+%~^-]+")
FORMS: Mapping[str, type[Packaged]] = {form.FORM: form for form in (Deb, Rpm)}


class PackagesError(DerpfleetError):
    """The packages of a host cannot be named or fetched."""


def parsed(text: str) -> list[Packaged]:
    """Return the packages that a host has named. Raises PackagesError."""
    try:
        said = json.loads(text)
        form = FORMS[said.get("form", Deb.FORM)]
        found = [_parsed(form, each["url"], each["record"]) for each in said["files"]]
        if len(found) > _COUNT_MAX or sum(one.size for one in found) > SIZE_MAX:
            raise ValueError(f"they are more than {_COUNT_MAX} packages, or {SIZE_MAX >> 20} MiB")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PackagesError("the host's list of packages makes no sense", why=str(error)[:500]) from error
    return found


def _parsed(form: type[Packaged], url: str, record: object) -> Packaged:
    if not (_URL.fullmatch(url) and url.endswith(f".{form.FORM}")):
        raise ValueError(f"{url} is no package")
    return form.parse(url, record)


def fetched(packages: Iterable[Packaged], *, cache: Path, progress: Progress) -> list[Path]:
    """Return the files of the packages. Each is fetched at most once, and compared with its sum.

    Raises Offline and PackagesError.
    """
    folder = cache / "packages"
    with locked(folder / ".lock"):
        found = [used(_fetched(one, folder, progress)) for one in packages]
        for form in FORMS:
            prune(folder, f"*.{form}*", most=_KEPT)
    return found


def packed(packages: Sequence[Packaged], *, cache: Path, progress: Progress) -> Release:
    """Return the archive of these packages with an index: a source of packages, once unpacked.

    Raises Offline and PackagesError.
    """
    paths = fetched(packages, cache=cache, progress=progress)
    files = {path.name: path for path in paths}
    index = packages[0].index(packages) if packages else {}
    key = sha256(b"\0".join(part for name, text in sorted(index.items()) for part in (name.encode(), text)))

    def make() -> bytes:
        return archive({**index, **{name: path.read_bytes() for name, path in files.items()}})

    return kept(cache, "packages", key[:16], make)


def keep_index(facts: Facts, packages: Sequence[Packaged], *, cache: Path) -> Path:
    """Keep the packages of a release for hosts that cannot name them. Return the file."""
    path = _index_path(facts, cache)
    files = [{"url": one.url, "record": one.record} for one in packages]
    said = {"form": next((one.FORM for one in packages), Deb.FORM), "files": files}
    with access_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(said, indent=1).encode())
    return path


def has_index(facts: Facts, *, cache: Path) -> bool:
    """Whether the packages of the host's release are kept."""
    return _index_path(facts, cache).exists()


def from_index(
    facts: Facts, names: Sequence[str], installed: Mapping[str, str], *, cache: Path
) -> list[Packaged]:
    """Return the packages of the kept index that the host has not in the same version.

    Raises Offline when the index lacks one of `names`.
    """
    path = _index_path(facts, cache)
    packages = parsed(path.read_text()) if path.exists() else []
    known = {one.name for one in packages}
    if missing := [name for name in names if name not in known]:
        system = f"{facts.os_id} {facts.os_version} ({facts.arch})"
        what = f"the packages {', '.join(missing)} of {system} are not at hand"
        raise Offline(what, why=f"no bundle with packages of {system} was used here", next=BUNDLE_STEP)
    return [one for one in packages if installed.get(one.name) != one.version]


def _index_path(facts: Facts, cache: Path) -> Path:
    return cache / "packages" / f"{facts.os_id}-{facts.os_version}-{facts.arch}.json"


def _fetched(one: Packaged, folder: Path, progress: Progress) -> Path:
    path = folder / one.file
    if path.exists() and sha256(path) == one.sha256:
        return path
    before_fetching(f"the package {one.name} {one.version}")
    progress(f"fetching {one.name} ({one.size / 1e6:.1f} MB)")
    content = _get(one.url, one.size)
    if sha256(content) != one.sha256:
        raise PackagesError(
            f"the package {one.name} is not the one that the distribution signed",
            where=one.url,
            why=f"its sha256 is {sha256(content)}, not {one.sha256}",
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
