"""How a service shows that it works: frozen data that the agent checks after a restart. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Exec:
    """A health condition: `argv` exits 0."""

    kind: ClassVar[str] = "exec"
    argv: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Http:
    """A health condition: a GET from the host itself answers with this status.

    `contains`: texts that the body must contain. `connect`: address:port to connect to instead of
    the URL's own; SNI and Host are the URL's. https is verified unless `insecure`. `proxy_header`:
    the server expects a header of the PROXY protocol first.
    """

    kind: ClassVar[str] = "http"
    url: str
    status: int = 200
    contains: tuple[str, ...] = ()
    connect: str = ""
    accept: str = "*/*"
    insecure: bool = False
    proxy_header: bool = False


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A site that is not ours and must still answer after a change.

    Its status before the run's first change is compared with the status after it. `proxy_header`:
    as in `Http`.
    """

    url: str
    connect: str
    proxy_header: bool = False


Health = Exec | Http
