"""The settings of ~/.ssh/config by name: which are followed here, and which ssh alone would follow.

Whatever decides which host is reached, and whom it is taken for, is followed or refused by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

ALGORITHMS = {
    "ciphers": "ciphers",
    "macs": "macs",
    "kexalgorithms": "kex",
    "hostkeyalgorithms": "keys",
}
"""Settings that are lists of algorithms, and paramiko's names of these lists."""
PINNING = {
    "stricthostkeychecking": "StrictHostKeyChecking",
    "userknownhostsfile": "UserKnownHostsFile",
    "globalknownhostsfile": "GlobalKnownHostsFile",
    "verifyhostkeydns": "VerifyHostKeyDNS",
    "nohostauthenticationforlocalhost": "NoHostAuthenticationForLocalhost",
}
"""Settings in whose place the site's own known_hosts counts."""
REFUSED = {
    "bindinterface": "BindInterface",
    "canonicalizepermittedcnames": "CanonicalizePermittedCNAMEs",
    "certificatefile": "CertificateFile",
    "knownhostscommand": "KnownHostsCommand",
    "pkcs11provider": "PKCS11Provider",
    "proxyusefdpass": "ProxyUseFdpass",
    "requiredrsasize": "RequiredRSASize",
    "revokedhostkeys": "RevokedHostKeys",
}
NOT_FOLLOWED = {
    "gssapiauthentication": "GSSAPIAuthentication",
    "hostbasedauthentication": "HostbasedAuthentication",
    "kbdinteractiveauthentication": "KbdInteractiveAuthentication",
    "passwordauthentication": "PasswordAuthentication",
    "preferredauthentications": "PreferredAuthentications",
    "pubkeyacceptedalgorithms": "PubkeyAcceptedAlgorithms",
    "pubkeyauthentication": "PubkeyAuthentication",
    "securitykeyprovider": "SecurityKeyProvider",
}
"""Settings by which ssh may log in where we do not. They send nobody elsewhere."""
MATCHES = ("all", "canonical", "exec", "final", "host", "localuser", "originalhost", "user")
"""The criteria of `Match` that are known here."""
_OFF = ("", "no", "none")
_TOKEN = re.compile(r"%(.?)")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


class NotSupported(ValueError):
    """The setting would lead ssh elsewhere, or to other keys, and cannot be followed here."""


def refuse(found: Mapping[str, Any]) -> None:
    """Raise NotSupported for a setting that has to be followed and cannot be."""
    for name, written in REFUSED.items():
        if (value := str(found.get(name) or "")).lower() not in _OFF:
            raise NotSupported(f"`{written} {value}` is not supported")


def named(table: Mapping[str, str], found: Mapping[str, Any]) -> str:
    """Return the names of a table's settings that are there; "" when none is."""
    return ", ".join(written for name, written in table.items() if name in found)


def expand(text: str, tokens: Mapping[str, object], *, is_path: bool = False) -> str:
    """Return the text with the values of its tokens, such as `%h`.

    A path may also begin with `~` and contain `${VARIABLE}`. Raises NotSupported.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in tokens:
            raise NotSupported(f"the token {found[0]} in `{text}` is not supported")
        return str(tokens[found[1]])

    def variable(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ValueError(f"there is no environment variable {found[1]}, which `{text}` needs")
        return os.environ[found[1]]

    if is_path:
        text = _VARIABLE.sub(variable, os.path.expanduser(text))  # noqa: PTH111 - it stays a text
    return _TOKEN.sub(value, text)


def dropped(known: Sequence[str], words: str) -> list[str]:
    """Return those of the `known` algorithms that a setting leaves out.

    `words`: `a,b` for these only, `-a,b` for all others; `+` and `^` leave none out. Raises
    NotSupported when none of them is left.
    """
    patterns = words.lstrip("+-^").split(",")
    fits = [name for name in known if any(_fits(name, pattern) for pattern in patterns)]
    if words.startswith(("+", "^")):
        return []
    out = fits if words.startswith("-") else [name for name in known if name not in fits]
    if len(out) == len(known):
        raise NotSupported(f"no algorithm is left by `{words}`: known here are {', '.join(known)}")
    return out


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern is for an algorithm, also by its name before it became a standard."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.removesuffix("@libssh.org"), pattern)
