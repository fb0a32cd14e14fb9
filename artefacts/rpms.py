"""Packages of Enterprise Linux and its relatives, and dnf's index of a folder of them."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self
from xml.etree import ElementTree as Xml

from pydantic import Field, TypeAdapter

from artefacts.packaged import Packaged

REPOMD, PRIMARY = "repodata/repomd.xml", "repodata/primary.xml.gz"
_NAMESPACE = "http://linux.duke.edu/metadata/"
# As rpm writes it: `openssl-libs >= 1:3.0.7-1.el9`; the epoch and the release may be left out.
_RELATION = re.compile(
    r"(?P<name>\S+) (?P<sign><=|>=|<|>|=) (?:(?P<epoch>\d+):)?(?P<ver>[^\s-]+)(?:-(?P<rel>\S+))?"
)
_SIGNS = {"=": "EQ", "<": "LT", ">": "GT", "<=": "LE", ">=": "GE"}
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9._+~^-]{1,256}$")]
_Number = Annotated[int, Field(strict=True, ge=0)]
_Texts = tuple[Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,2048}$")], ...]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A package in the package lists. `files`: those of its files that others ask for by path."""

    name: _Word
    arch: _Word
    epoch: _Number
    version: _Word
    release: _Word
    size: _Number
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    provides: _Texts
    requires: _Texts
    conflicts: _Texts
    obsoletes: _Texts
    files: _Texts


_RECORD = TypeAdapter(Record)


@dataclass(frozen=True, kw_only=True)
class Rpm(Packaged):
    """A package with its record as `files/scripts/resolve_rpms.py` gives it."""

    FORM = "rpm"
    details: Record

    @classmethod
    def parse(cls, url: str, record: Any) -> Self:
        return cls(url=url, details=_RECORD.validate_python(record))

    @property
    def record(self) -> dict[str, Any]:
        return asdict(self.details)

    @property
    def name(self) -> str:
        return self.details.name

    @property
    def version(self) -> str:
        return f"{self.details.epoch}:{self.details.version}-{self.details.release}"

    @property
    def sha256(self) -> str:
        return self.details.sha256

    @property
    def size(self) -> int:
        return self.details.size

    @classmethod
    def index(cls, packages: Sequence[Self]) -> dict[str, bytes]:
        names = {"xmlns": f"{_NAMESPACE}common", "xmlns:rpm": f"{_NAMESPACE}rpm"}
        root = Xml.Element("metadata", {**names, "packages": str(len(packages))})
        for one in packages:
            _add(root, one.details, one.file)
        plain = Xml.tostring(root)
        primary = gzip.compress(plain, mtime=0)
        return {PRIMARY: primary, REPOMD: _top(plain, primary)}


def _add(root: Xml.Element, record: Record, file: str) -> None:
    """Add the element of a package, with what dnf's solver reads."""
    found = Xml.SubElement(root, "package", type="rpm")
    _text(found, "name", record.name)
    _text(found, "arch", record.arch)
    Xml.SubElement(found, "version", epoch=str(record.epoch), ver=record.version, rel=record.release)
    _text(found, "checksum", record.sha256, type="sha256", pkgid="YES")
    Xml.SubElement(found, "size", package=str(record.size))
    Xml.SubElement(found, "location", href=file)
    form = Xml.SubElement(found, "format")
    for kind in ("provides", "requires", "conflicts", "obsoletes"):
        relations = Xml.SubElement(form, f"rpm:{kind}")
        for relation in getattr(record, kind):
            Xml.SubElement(relations, "rpm:entry", _entry(relation))
    for path in record.files:
        _text(form, "file", path)


def _entry(relation: str) -> dict[str, str]:
    """Return the attributes of a relation. To the index, a rich one as `(a if b)` is a name."""
    match = _RELATION.fullmatch(relation)
    if match is None:
        return {"name": relation}
    found = {"name": match["name"], "flags": _SIGNS[match["sign"]]}
    found |= {"epoch": match["epoch"] or "0", "ver": match["ver"]}
    return found | ({"rel": match["rel"]} if match["rel"] else {})


def _top(plain: bytes, primary: bytes) -> bytes:
    """Return repomd.xml, which names the list of packages with its sums."""
    root = Xml.Element("repomd", xmlns=f"{_NAMESPACE}repo")
    data = Xml.SubElement(root, "data", type="primary")
    _text(data, "checksum", hashlib.sha256(primary).hexdigest(), type="sha256")
    _text(data, "open-checksum", hashlib.sha256(plain).hexdigest(), type="sha256")
    Xml.SubElement(data, "location", href=PRIMARY)
    _text(data, "timestamp", "0")
    _text(data, "size", str(len(primary)))
    return Xml.tostring(root)


def _text(parent: Xml.Element, tag: str, text: str, **attributes: str) -> None:
    Xml.SubElement(parent, tag, attributes).text = text
