"""Errors that more than one verb raises."""

from __future__ import annotations

from inventory.errors import DerpfleetError


class Interrupted(DerpfleetError):
    """The operator pressed Ctrl-C."""

    exit_code = 130


class CannotWrite(DerpfleetError):
    """A file cannot be written at that place."""


class CannotRead(DerpfleetError):
    """A file of the controller cannot be read."""


class WouldOverwrite(DerpfleetError):
    """The file exists already."""

    exit_code = 4


class NoSuchHost(DerpfleetError):
    """--host names no host of the site."""

    exit_code = 4


class NotManaged(DerpfleetError):
    """Somebody else runs the relay: derpfleet does not log in to its host."""

    exit_code = 4

    def __init__(self, name: str) -> None:
        super().__init__(
            "somebody else runs this relay, so derpfleet does not log in to its host",
            host=name,
            why=f"hosts.{name}.managed is false in the site file",
            next=f"invoke verify --host {name} proves it, invoke deploy --host {name} registers it as well",
        )


class DeployRefused(DerpfleetError):
    """Something on the host prevents the deploy; nothing was changed."""
