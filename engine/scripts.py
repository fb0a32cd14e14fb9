"""The programs under files/scripts, which hosts run as `python3 -I -c TEXT`."""

from __future__ import annotations

from functools import cache

from inventory.checkout import CHECKOUT

SCRIPTS = CHECKOUT / "files" / "scripts"


@cache
def script(name: str) -> str:
    """Return the text of a program without its docstring, which is for readers of the source."""
    return (SCRIPTS / f"{name}.py").read_text().split('"""\n\n', 1)[1]
