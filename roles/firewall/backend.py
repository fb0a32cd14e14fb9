"""The relay's port behind a front is closed to the host's other users.

The relay believes what it hears there about the clients' addresses. nginx connects as a user of its
own, by which the kernel knows it, whatever the relay's program and runner are.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.facts import Ask, Facts
from engine.render import render
from engine.resource import Resource
from roles import paths
from roles.contract import Caller
from roles.firewall.table import Table
from roles.wiring import Wiring

_TABLE = Table(
    name="derpfleet_backend",
    title="derpfleet's table for the relay's port behind its front",
    path=paths.BACKEND_RULES,
    unit="derpfleet-backend.service",
)

ASK = Ask(files=(_TABLE.unit_file,))


def resources(wiring: Wiring, callers: Sequence[Caller]) -> list[Resource]:
    """Return the table that lets in root, which checks the relay, and the front's users."""
    users = tuple(dict.fromkeys(("root", *(caller.user for caller in callers))))
    needs = tuple(name for caller in callers for name in caller.needs)
    rules = render("backend.nft.j2", table=_TABLE.name, port=wiring.relay.port, users=users)
    # It closes a port of loopback, so it can lock out nobody who comes from outside.
    return _TABLE.resources(rules, revert_after_s=0, needs=needs)


def replaced(facts: Facts) -> list[Resource]:
    """Return the removal of the table, if the host has it."""
    return absent() if _TABLE.unit_file in facts.files else []


absent = _TABLE.absent
