"""The forms of the site file's values: ports, names, URLs, paths. No I/O.

Editors show a pattern's words, and refusals use them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError


def text(pattern: str, words: str, **more: Any) -> Any:
    """Return a field for text of this form.

    `words` complete the sentence "… is not". Editors know the keyword `patternErrorMessage`, too.
    """
    return Field(pattern=pattern, json_schema_extra={"patternErrorMessage": words}, **more)


def _beside_the_site(path: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base")
    if not base:
        return path
    return str(Path(base) / os.path.expanduser(path))  # noqa: PTH111 - Path's own may raise


def _authority(text: str) -> str:
    """Return the text, which has to be `[user@]host[:port]`. Raises ValueError if it is not."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.hostname.startswith("-") or parts.port == 0:
        raise ValueError(text)
    return text


def leads_somewhere(url: str) -> str:
    _authority(urlsplit(url).netloc)
    if "@" in urlsplit(url).netloc:
        raise PydanticCustomError(
            "login_in_url",
            "a URL has no user and password here: they would be on the command line, in files that all "
            "may read and in diffs. Let the server know its callers by address, or use a secret",
        )
    return url


def _not_ipv6(text: Any) -> Any:
    """Return the text, which may not be an IPv6 address. Raises PydanticCustomError."""
    if isinstance(text, str) and text.count(":") > 1 and re.fullmatch(r"\[?[\dA-Fa-f:.]+\]?", text):
        raise PydanticCustomError(
            "ipv6_name",
            "an IPv6 address cannot be the relay's name, as many networks cannot reach it: give a host name "
            "or the IPv4 address here, and the IPv6 address as ipv6",
        )
    return text


def jump_hosts(text: str) -> str:
    """Return the jump hosts, each `[user@]host[:port]`, with commas between and without spaces.

    Raises ValueError if one of them has another form.
    """
    return ",".join(_authority(word.strip()) for word in text.split(","))


_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_CONTROL = r"\x00-\x1f\x7f"
_BLANK = rf"\s{_CONTROL}"
# As in OpenSSH: a ProxyCommand with %h or %r, or a `Match exec`, would run a name with these.
_SHELL = rf"'`\"\\;&<>|(){{}}{_BLANK}"


def _word(without: str) -> str:
    """Return the pattern of a word that has none of these characters, and is no option."""
    return f"[^-{without}][^{without}]*"


def _name(most: int) -> str:
    """Return the pattern of a name with `most` characters at the most."""
    return f"[A-Za-z0-9][A-Za-z0-9._-]{{0,{most - 1}}}"


_HOP = _word(f"/$,{_SHELL}")


Port = Annotated[int, Field(ge=1, le=65535)]
# A path on the controller; absolute once loaded.
LocalPath = Annotated[str, Field(min_length=1), AfterValidator(_beside_the_site)]
HostPath = Annotated[str, text(rf"^/[^{_CONTROL}]*$", "an absolute path")]
SocketPath = Annotated[
    str,
    text(
        rf"^(/var)?/run(/[^./{_BLANK}][^/{_BLANK}]*)+$", "a path below /run, where the relay sees sockets"
    ),
]
Program = Annotated[str, text(f"^{_word(_BLANK)}$", "the name or path of a program")]
HostName = Annotated[
    str, text(f"^{_name(63)}$", "a host's name: letters, digits, dots, underscores and hyphens")
]
Domain = Annotated[
    str,
    text(
        rf"^({_LABEL}\.)+{_LABEL}$",
        "a host name: lower case, with a dot, without scheme, port or path; one with other letters as xn--…",
        max_length=253,
    ),
    BeforeValidator(_not_ipv6),
]
Url = Annotated[
    str,
    text(f"^https?://[^/{_BLANK}]+(/[^{_BLANK}]*)?$", "a URL, as https://name/path"),
    AfterValidator(leads_somewhere),
]
Jump = Annotated[
    str,
    text(rf"^{_HOP}(\s*,\s*{_HOP})*$", "jump hosts, as user@host:port with commas between"),
    AfterValidator(jump_hosts),
]
OpenPort = Annotated[
    str,
    text(
        r"^([0-9]{1,5}(-[0-9]{1,5})?/(tcp|udp)|[0-9]{1,3}/ip)$", "a port, as 8443/tcp or 60000-61000/udp"
    ),
]
Mail = Annotated[str, text(f"^{_word('@' + _BLANK)}@[^@{_BLANK}]+$", "a mail address")]
NodeKey = Annotated[
    str, text(r"^nodekey:[0-9a-f]{64}$", "a node key, as nodekey: with 64 lower-case hex digits")
]
Sha256 = Annotated[str, text(r"^[0-9a-f]{64}$", "64 lower-case hex digits")]
ImageRef = Annotated[
    str,
    text(
        f"^{_word(_BLANK)}@sha256:[0-9a-f]{{64}}$",
        "an image with its digest, name@sha256:…: a tag can change under you"
    ),
]
Address = Annotated[
    str, text(f"^{_word('@/$,' + _SHELL)}$", "a name or an address, without user, port or path")
]
Wildcard = Annotated[
    str,
    text(rf"^\*\.({_LABEL}\.)+{_LABEL}$", "a wildcard, as *.example.org", max_length=253),
]
Word = Annotated[str, text(f"^{_name(128)}$", "a word of letters, digits, dots and dashes")]
UnitName = Annotated[
    str,
    text(
        r"^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*\.service$", "a systemd unit, as headscale.service"
    ),
]
TsigAlgorithm = Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"]
User = Annotated[str, text(f"^{_word(_SHELL)}$", "the name of a user")]
