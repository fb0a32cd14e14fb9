"""Packages of Debian and its relatives, and apt's index of a folder of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from artefacts.packaged import Packaged

INDEX = "Packages"  # apt's name of it
_FILENAME = re.compile(r"^Filename: .*$", re.M)
_FIELD = re.compile(r"^(Package|Version|Architecture|Size|SHA256|Filename): (\S+)$", re.M)


@dataclass(frozen=True, kw_only=True)
class Deb(Packaged):
    """A package with its record as text, in the format of Packages."""

    FORM = "deb"
    text: str

    @classmethod
    def parse(cls, url: str, record: Any) -> Self:
        found = cls(url=url, text=record)
        if len(found._fields) != 6 or "\n\n" in record:
            raise ValueError(f"{url} is no package")
        if not re.fullmatch(r"[0-9a-f]{64}", found.sha256):
            raise ValueError(f"{url} has no sum")
        return found

    @cached_property
    def _fields(self) -> dict[str, str]:
        return dict(_FIELD.findall(self.text))

    @property
    def record(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        return self._fields["Package"]

    @property
    def version(self) -> str:
        return self._fields["Version"]

    @property
    def sha256(self) -> str:
        return self._fields["SHA256"]

    @property
    def size(self) -> int:
        return int(self._fields["Size"])

    @classmethod
    def index(cls, packages: Sequence[Self]) -> dict[str, bytes]:
        records = [_FILENAME.sub(f"Filename: ./{one.file}", one.text) for one in packages]
        return {INDEX: "\n".join(records).encode()}
