"""Errors that more than one verb raises."""

from __future__ import annotations

from inventory.errors import DerpfleetError


class Interrupted(DerpfleetError):
    """The operator pressed Ctrl-C."""

    exit_code = 130


class CannotWrite(DerpfleetError):
    """A file cannot be written at that place."""


class NoSuchHost(DerpfleetError):
    """--host names no host of the site."""

    exit_code = 4


class DeployRefused(DerpfleetError):
    """Something on the host prevents the deploy; nothing was changed."""
