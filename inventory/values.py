"""The forms of the site file's values: ports, names, URLs, paths. No I/O.

Editors show a pattern's words, and refusals use them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo
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
    if not parts.hostname or parts.port == 0:
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


def jump_hosts(text: str) -> str:
    """Return the jump hosts, each `[user@]host[:port]`, with commas between and without spaces.

    Raises ValueError if one of them has another form.
    """
    return ",".join(_authority(word.strip()) for word in text.split(","))


_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"

Port = Annotated[int, Field(ge=1, le=65535)]
# A path on the controller; absolute once loaded.
LocalPath = Annotated[str, Field(min_length=1), AfterValidator(_beside_the_site)]
HostPath = Annotated[str, text(r"^/[^\x00]*$", "an absolute path")]
HostName = Annotated[
    str,
    text(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", "a name of letters, digits, dots, underscores and hyphens"
    ),
]
Domain = Annotated[
    str,
    text(
        rf"^({_LABEL}\.)+{_LABEL}$",
        "a host name: lower case, with a dot, without scheme, port or path; one with other letters as xn--…",
        max_length=253,
    ),
]
Url = Annotated[
    str,
    text(r"^https?://[^/\s]+(/\S*)?$", "a URL, as https://name/path"),
    AfterValidator(leads_somewhere),
]
Jump = Annotated[
    str,
    text(r"^[^\s/]+(\s*,\s*[^\s/]+)*$", "jump hosts, as user@host:port with commas between"),
    AfterValidator(jump_hosts),
]
OpenPort = Annotated[
    str,
    text(
        r"^([0-9]{1,5}(-[0-9]{1,5})?/(tcp|udp)|[0-9]{1,3}/ip)$", "a port, as 8443/tcp or 60000-61000/udp"
    ),
]
Mail = Annotated[str, text(r"^[^@\s]+@[^@\s]+$", "a mail address")]
NodeKey = Annotated[
    str, text(r"^nodekey:[0-9a-f]{64}$", "a node key, as nodekey: with 64 lower-case hex digits")
]
Sha256 = Annotated[str, text(r"^[0-9a-f]{64}$", "64 lower-case hex digits")]
ImageRef = Annotated[
    str,
    text(
        r"^[^-\s\x00-\x1f\x7f]\S*@sha256:[0-9a-f]{64}$",
        "an image with its digest, name@sha256:…: a tag can change under you"
    ),
]
Address = Annotated[str, text(r"^[^\s@/]+$", "a name or an address, without user, port or path")]
Wildcard = Annotated[
    str,
    text(rf"^\*\.({_LABEL}\.)+{_LABEL}$", "a wildcard, as *.example.org", max_length=253),
]
Word = Annotated[
    str, text(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", "a word of letters, digits, dots and dashes")
]
UnitName = Annotated[
    str,
    text(
        r"^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*\.service$", "a systemd unit, as headscale.service"
    ),
]
TsigAlgorithm = Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"]
User = Annotated[str, text(r"^[^-\s\x00-\x1f\x7f][^\s\x00-\x1f\x7f]*$", "the name of a user")]
