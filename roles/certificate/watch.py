"""The units that serve a certificate anew when another program on the host has renewed it."""

from __future__ import annotations

from engine.facts import Ask, Facts
from engine.render import render
from engine.resource import Absent, File, Resource, Service
from inventory.choices import source_of
from inventory.model import Host
from roles import paths

_NAME = "derpfleet-certificate-watch"
_PATH_UNIT, _SERVICE = f"{_NAME}.path", f"{_NAME}.service"
_FILES = tuple(f"{paths.SYSTEMD}/{unit}" for unit in (_PATH_UNIT, _SERVICE))
ASK = Ask(files=_FILES)


def resources(host: Host, facts: Facts, files: tuple[str, str]) -> list[Resource]:
    """Return the units, or their removal where nothing is to be watched any more.

    `files`: where chain and key are.
    """
    if not source_of(host).is_on_host:
        return absent() if set(_FILES) & set(facts.files) else []
    path_unit, service = _FILES
    content = render("certificate-watch.path.j2", host=host, files=files)
    once = render("certificate-watch.service.j2", host=host, program=paths.CERTIFICATE_PROGRAM)
    return [
        File(path=service, content=once),
        File(path=path_unit, content=content),
        Service(unit=_PATH_UNIT, restart_on=(f"file:{path_unit}",), needs=(f"file:{service}",)),
    ]


def absent() -> list[Resource]:
    """Return the removal of the units."""
    return [
        Service(unit=_PATH_UNIT, enabled=False, running=False),
        *(Absent(path=path, needs=(f"service:{_PATH_UNIT}",)) for path in _FILES),
    ]
