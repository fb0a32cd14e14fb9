"""Read the sources of packages of a host with dnf: /etc/yum.repos.d/*.repo."""

from __future__ import annotations

import configparser
from collections.abc import Iterable
from dataclasses import dataclass

_NO = ("0", "no", "false", "off")


@dataclass(frozen=True, kw_only=True)
class Signing:
    """How a host's sources are signed.

    `checked`: whether dnf checks the packages of each of them. `keys`: their files, as `gpgkey` has
    them, with variables such as $releasever.
    """

    checked: bool
    keys: tuple[str, ...]


def signing(texts: Iterable[str]) -> Signing:
    """Return how the sources that are in use are signed. What cannot be read counts as checked."""
    sources = [source for text in texts for source in _sources(text)]
    used = [source for source in sources if source.get("enabled", "1").lower() not in _NO]
    words = [word for source in used for word in source.get("gpgkey", "").replace(",", " ").split()]
    return Signing(
        checked=all(source.get("gpgcheck", "1").lower() not in _NO for source in used),
        keys=tuple(dict.fromkeys(word for word in words if word.startswith("file:///"))),
    )


def _sources(text: str) -> list[configparser.SectionProxy]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return []
    return [parser[name] for name in parser.sections()]
