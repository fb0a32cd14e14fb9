"""Configurations of other programs that name files of ours. A removal would break them."""

from __future__ import annotations

import re
from collections.abc import Set

from engine.facts import Ask, Facts
from inventory.model import Host
from roles import paths

_CERTBOTS = "/etc/letsencrypt"
_PATH = f"({_CERTBOTS}/(live|archive)|{paths.ETC})/[A-Za-z0-9_.*-]+"

# From the beginning of a line that is no comment to the path: no more of what others wrote is read.
ASK = Ask(
    commands={
        "references": (
            *("grep", "--recursive", "--no-messages", "--binary-files=without-match", "--only-matching"),
            *(f"--exclude-dir={name}" for name in ("letsencrypt", "derpfleet")),
            *("--exclude=*derpfleet*", "--extended-regexp", f"^[^#;]*{_PATH}", "/etc"),
        )
    }
)
_LINE = re.compile(rf"^(/[^:\n]+):.*?(?P<path>{_PATH})$", re.M)


def refusals(host: Host, facts: Facts, ours: Set[str]) -> list[str]:
    """Return a sentence for each file of another program that names one of ours.

    `ours`: the names of certbot's certificates that go.
    """
    said = facts.commands.get("references")
    found = {(match[1], match["path"]) for match in _LINE.finditer(said.stdout if said else "")}
    return [
        f"{file} on {host.name} refers to {path}, which goes with the relay: give that program files of its "
        "own first, or take that line out."
        for file, path in sorted(found)
        if not path.startswith(f"{_CERTBOTS}/") or path.rpartition("/")[2] in ours
    ]
