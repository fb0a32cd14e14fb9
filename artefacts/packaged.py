"""The contract of a package of a distribution. Each form of package is a module beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self


@dataclass(frozen=True, kw_only=True)
class Packaged(ABC):
    """A package: where it is fetched, and its record in the package lists of a host."""

    FORM: ClassVar[str]  # also the end of its file's name
    url: str

    @classmethod
    @abstractmethod
    def parse(cls, url: str, record: Any) -> Self:
        """Return the package of a host's answer. Raises ValueError and TypeError."""

    @property
    @abstractmethod
    def record(self) -> Any:
        """Return its record, as `parse` takes it, for JSON."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return its name."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Return its version, as the host names that of an installed package."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Return the sum of its file, 64 hex digits."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Return the size of its file in bytes."""

    @classmethod
    @abstractmethod
    def index(cls, packages: Sequence[Self]) -> dict[str, bytes]:
        """Return the files that make a folder of these packages a source of packages."""

    @property
    def file(self) -> str:
        """Return the name of its file in that folder."""
        return f"{self.sha256}.{self.FORM}"
