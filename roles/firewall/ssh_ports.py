"""The ports of sshd's configuration are opened when that changes, not only by the next deploy.

Our table has a set `ssh` for them. Else sshd that is moved to another port, and restarted, would be
closed to everybody.
"""

from __future__ import annotations

from engine.render import render
from engine.resource import Absent, File, Resource, Service
from roles import paths

SERVICE = "derpfleet-ssh-ports.service"
_PATH = "derpfleet-ssh-ports.path"
_FILES = {unit: f"{paths.SYSTEMD}/{unit}" for unit in (SERVICE, _PATH)}


def resources(*, table: str, firewall: str) -> list[Resource]:
    """Return the units. `firewall`: the unit that loads the table, which starts ours as well."""
    service = File(
        path=_FILES[SERVICE], content=render("ssh-ports.service.j2", table=table, firewall=firewall)
    )
    path = File(path=_FILES[_PATH], content=render("ssh-ports.path.j2"))
    watch = Service(unit=_PATH, restart_on=(path.id,), needs=(service.id, f"service:{firewall}"))
    return [service, path, watch]


def gone() -> list[Resource]:
    """Return the units, stopped, and the removal of their files."""
    stopped = Service(unit=_PATH, enabled=False, running=False)
    return [stopped, *(Absent(path=path, needs=(stopped.id,)) for path in _FILES.values())]
