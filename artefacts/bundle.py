"""A bundle: files of the cache in one tar, with a manifest of their sums as its first member.

It carries everything that a controller without a network would have to fetch. Same files, same
bytes. A bundle is checked whole before any of its files is used.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.cache import access_to
from engine.plan import sha256
from inventory.errors import DerpfleetError

MANIFEST = "manifest.json"
FORMAT = 1
_MANIFEST_MAX = 16 << 20
_NAME = re.compile(r"(wheels|releases|packages)(/[A-Za-z0-9_+~-][A-Za-z0-9_.+~-]{0,199}){1,2}")
_PIECE = 1 << 20
_AGAIN = (
    "compare its sha256 with the one that invoke bundle --out printed: copy it again if they differ, else "
    "make it again"
)


class BundleError(DerpfleetError):
    """A bundle cannot be written, or must not be used."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The contents of a bundle: `hosts` by name in words, and the names of its `files`."""

    sha256: str
    hosts: Mapping[str, str]
    files: tuple[str, ...]


def require_place(out: Path) -> None:
    """Raise BundleError if `out` can be no file, before anything is fetched for it."""
    folder = out.parent.is_dir()
    if out.is_dir() or not folder:
        why = "it is a folder" if folder else f"there is no folder {out.parent}"
        raise _unwritten(out, why)


def _unwritten(out: Path, why: str) -> BundleError:
    step = "choose another place with --out"
    return BundleError("the bundle cannot be written", where=str(out), why=why, next=step)


def write_bundle(out: Path, *, cache: Path, files: set[Path], hosts: Mapping[str, str]) -> Bundle:
    """Write these files of the cache to `out`. Raises BundleError."""
    by_name = {str(path.relative_to(cache)): path for path in sorted(files)}
    entries = {name: {"sha256": sha256(path), "size": path.stat().st_size} for name, path in by_name.items()}
    manifest = {"derpfleet": FORMAT, "hosts": {**hosts}, "files": entries}
    head = json.dumps(manifest, indent=1, sort_keys=True).encode()
    temp = out.with_name(f"{out.name}.part")
    try:
        with tarfile.open(temp, "w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(_member(MANIFEST, len(head)), io.BytesIO(head))
            for name, path in by_name.items():
                with path.open("rb") as file:
                    tar.addfile(_member(name, path.stat().st_size), file)
        temp.rename(out)
    except OSError as error:
        with suppress(OSError):  # it may be no folder, or read-only
            temp.unlink()
        raise _unwritten(out, error.strerror or str(error)) from error
    return Bundle(sha256=sha256(out), hosts=hosts, files=tuple(by_name))


def use_bundle(path: Path, *, cache: Path, expected: str = "") -> Bundle:
    """Check the bundle, and put its files into the cache. A wrong one changes nothing.

    `expected`: the sha256 of the whole file, as `write_bundle` returned it; "": it is not compared.
    Raises BundleError, CacheError.
    """
    digest = _checked_sum(path, expected)
    with access_to(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="bundle-", dir=cache) as folder:
            hosts, names = _unpacked(path, Path(folder))
            for name in names:
                place = cache / name
                place.parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / name).rename(place)
    return Bundle(sha256=digest, hosts=hosts, files=tuple(names))


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info


def _checked_sum(path: Path, expected: str) -> str:
    try:
        digest = sha256(path)
    except OSError as error:
        why, step = error.strerror or str(error), "give the file that invoke bundle --out has written"
        raise BundleError("the bundle cannot be read", where=str(path), why=why, next=step) from error
    if expected and digest != expected.lower():
        raise _refused(path, f"its sha256 is {digest}, not {expected}")
    return digest


def _unpacked(path: Path, folder: Path) -> tuple[dict[str, str], list[str]]:
    """Unpack into `folder`, and compare every sum. Return the hosts, and the names of the files."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = iter(tar)
            hosts, entries = _manifest(tar, next(members, None))
            names = [_kept(tar, member, entries, folder) for member in members]
    except (tarfile.TarError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _refused(path, str(error) or type(error).__name__) from error
    if missing := sorted(set(entries).difference(names)):
        raise _refused(path, f"it lacks {missing[0]}, which its manifest names")
    return hosts, names


def _manifest(tar: tarfile.TarFile, first: tarfile.TarInfo | None) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the hosts in words, and {name: {"sha256", "size"}}. Raises ValueError and its like."""
    if first is None or first.name != MANIFEST or first.size > _MANIFEST_MAX:
        raise ValueError(f"it does not begin with {MANIFEST}")
    manifest = json.loads(b"".join(_pieces(tar.extractfile(first))))
    if manifest["derpfleet"] != FORMAT:
        raise ValueError(f"its format is {manifest['derpfleet']!r}, and this version reads {FORMAT}")
    if wrong := [name for name in manifest["files"] if not _NAME.fullmatch(name)]:
        raise ValueError(f"it has a file called {wrong[0]!r}, which does not belong into a bundle")
    return {str(name): str(words) for name, words in manifest["hosts"].items()}, manifest["files"]


def _kept(tar: tarfile.TarFile, member: tarfile.TarInfo, entries: Mapping[str, Any], folder: Path) -> str:
    """Write one file below `folder` and return its name. Raises ValueError and KeyError."""
    wanted = entries.get(member.name)
    if wanted is None or not member.isreg() or member.size != wanted["size"]:
        raise ValueError(f"{member.name} is not the file that the manifest names")
    place, digest = folder / member.name, hashlib.sha256()
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as out:
        for piece in _pieces(tar.extractfile(member)):
            digest.update(piece)
            out.write(piece)
    if digest.hexdigest() != wanted["sha256"]:
        raise ValueError(f"the sha256 of {member.name} is not the manifest's")
    return member.name


def _pieces(file: IO[bytes] | None) -> Iterator[bytes]:
    while file is not None and (piece := file.read(_PIECE)):
        yield piece


def _refused(path: Path, why: str) -> BundleError:
    what = "the bundle is damaged or was changed; nothing of it is used"
    return BundleError(what, where=str(path), why=why, next=_AGAIN)
