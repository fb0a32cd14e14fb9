"""A question over https and its answer, as data. `control.contract.Reach` asks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inventory.errors import DerpfleetError
from inventory.secrets import Secret


@dataclass(frozen=True, kw_only=True)
class WebQuestion:
    """A request. Headers and the body may be secrets, which no message shows."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str | Secret] = field(default_factory=dict)
    body: str | Secret = ""


@dataclass(frozen=True, kw_only=True)
class WebAnswer:
    """An answer with any status. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoWebAnswer(DerpfleetError):
    """No whole answer came: no connection, no trusted certificate, too late or too long."""

    exit_code = 3
