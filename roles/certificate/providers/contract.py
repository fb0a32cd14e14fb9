"""The contract of the providers of DNS zones. A provider is a module of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from inventory.acme import DnsZone
from inventory.secrets import Secret

PLACE = "{}"
"""The secret's place in the text of a file (`Secret.within`)."""


class Provider(Protocol):
    """One plugin of certbot, which writes records into a zone."""

    PLUGIN: str  # certbot's name of it
    WAITS: bool  # for a time that certbot is given; else until the provider says so

    def credentials(self, dns: DnsZone, secret: Secret) -> Secret:
        """Return the text of the file with the credentials."""

    def arguments(self, path: str) -> tuple[str, ...]:
        """Return certbot's arguments. `path`: the file with the credentials."""

    def environment(self, path: str) -> Mapping[str, str]:
        """Return the variables that certbot needs. `path`: the file with the credentials."""


def options(plugin: str, path: str) -> tuple[str, ...]:
    """Return certbot's arguments for a plugin that reads its own file."""
    return (f"--{plugin}-credentials", path)


def settings(plugin: str, **values: object) -> str:
    """Return the text of such a file."""
    prefix = plugin.replace("-", "_")
    return "\n".join(f'{prefix}_{key} = "{value}"' for key, value in values.items())


def no_environment(path: str) -> Mapping[str, str]:
    """Return no variables: the plugin is told its file by an argument."""
    return {}
