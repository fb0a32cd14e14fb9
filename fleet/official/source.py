"""Read Tailscale's map: from its control server over https, or from a file."""

from __future__ import annotations

import json
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from artefacts.offline import VARIABLE, is_offline
from inventory.derp_map import OURS, DerpMap, NoDerpMap, read_derp_map
from inventory.errors import DerpfleetError

DEFAULT = "https://controlplane.tailscale.com/derpmap/default"
_MOST = 4 << 20  # bytes; the map of 2026 has 40 kB
_WITHIN_S = 20.0


class NoOfficialMap(DerpfleetError):
    """The map with Tailscale's regions cannot be had, or is none."""


def read(source: str) -> DerpMap:
    """Return the map at an https URL or in a file; it has regions of Tailscale.

    Raises NoOfficialMap.
    """
    content = _fetched(source) if "://" in source else _from_file(Path(source))
    try:
        if len(content) > _MOST:
            raise NoDerpMap(f"it has more than {_MOST >> 20} MiB")
        found = read_derp_map(json.loads(content))
        if not any(region and id < OURS.start and region.nodes for id, region in found.regions.items()):
            raise NoDerpMap(f"it has no region below {OURS.start}")
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, NoDerpMap) else "it is no JSON"
        raise NoOfficialMap(f"{source} is no map with Tailscale's regions", why=why, next=_step()) from None
    return found


def _from_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST + 1)
    except OSError as error:
        raise NoOfficialMap(f"{path} cannot be read", why=error.strerror or "", next=_step()) from None


def _fetched(url: str) -> bytes:
    if is_offline():
        raise NoOfficialMap("the map is not fetched", why=f"{VARIABLE} is set", next=_step())
    if not url.startswith("https://"):
        why = "the regions of a map get all traffic of nodes, so it has to come by https"
        raise NoOfficialMap(f"{url} is not fetched", why=why, next=_step())
    try:
        opener = urllib.request.build_opener(_HttpsOnly)
        with opener.open(url, timeout=_WITHIN_S) as answer:
            content: bytes = answer.read(_MOST + 1)
            return content
    except URLError as error:
        why = str(error if isinstance(error, HTTPError) else error.reason)
    except (OSError, HTTPException, ValueError) as error:
        why = str(error) or type(error).__name__
    raise NoOfficialMap(f"{url} cannot be fetched", why=why, next=_step())


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to https only."""

    def redirect_request(  # noqa: PLR0917 - as in the base
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Return the next request. Raises URLError for another scheme."""
        if not newurl.startswith("https://"):
            raise URLError(f"it redirects to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _step() -> str:
    return f"fetch {DEFAULT} where it can be reached, then: invoke official --from FILE"
