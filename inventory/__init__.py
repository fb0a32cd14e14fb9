"""The site: the hosts, and the settings of each. Nothing here contacts a host.

`inventory.load(path)` returns a Site or raises a SiteError that lists every problem. Each name is
imported when it is first used, so that a command that needs no site imports none of this.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inventory.example import init_text as init_text
    from inventory.files import file_problems as file_problems
    from inventory.names import resolve_problems as resolve_problems
    from inventory.problems import Problem as Problem
    from inventory.problems import SiteError as SiteError
    from inventory.schema import json_schema as json_schema
    from inventory.site_file import load as load

_HOME = {
    "load": "site_file",
    "file_problems": "files",
    "resolve_problems": "names",
    "Problem": "problems",
    "SiteError": "problems",
    "init_text": "example",
    "json_schema": "schema",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value
