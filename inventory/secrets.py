"""Secrets by reference. A site file never holds a secret, only where it lies.

`env:NAME` an environment variable, `file:PATH` the file's text, `cmd:COMMAND` what the command prints (run by the shell, as the
person who started us); line breaks at the end are no part of it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Annotated, NoReturn

from pydantic import Field

from inventory.errors import DerpfleetError

_COMMAND_S = 60

SecretRef = Annotated[
    str,
    Field(
        pattern=r"^(env|file|cmd):.+",
        # writeOnly: what a person wrote here by mistake is never shown again
        json_schema_extra={"patternErrorMessage": "a reference: env:NAME, file:PATH or cmd:COMMAND", "writeOnly": True},
    ),
]


class Secret:
    """A value that shows itself nowhere but in `reveal()`, which only the wire calls."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


class SecretError(DerpfleetError):
    """A secret's reference leads nowhere."""

    exit_code = 4


def read_secret(ref: str, *, base: Path) -> Secret:
    """The secret that `ref` names; a relative file is relative to `base`, the site file's folder.

    Raises SecretError when it is not there, is no text or is empty.
    """
    kind, _, rest = ref.partition(":")
    try:
        if kind == "env":
            value, why = os.environ.get(rest, ""), f"the environment has no {rest}, or an empty one"
        elif kind == "file":
            path = file_of(ref, base=base)
            value, why = path.read_text().rstrip("\r\n"), f"{path} is empty"
        else:
            value, why = _printed_by(rest, base)
    except OSError as error:
        value, why = "", f"{error.filename}: {error.strerror}"
    except UnicodeDecodeError:
        value, why = "", "it is no UTF-8 text"
    if not value:
        raise SecretError(
            f"secret {ref!r} cannot be read", why=why, next=f"make {ref!r} available, or change the reference in the site file"
        )
    return Secret(value)


def file_of(ref: str, *, base: Path) -> Path:
    """The file that a `file:` reference names."""
    return base / os.path.expanduser(ref.removeprefix("file:"))  # noqa: PTH111 - Path's own raises where ~name is nobody


def _printed_by(command: str, folder: Path) -> tuple[str, str]:
    """What the command printed, and why it is nothing. stdin stays the person's own: a password manager may ask."""
    try:
        done = subprocess.run(  # noqa: S602 - the person's own command
            command,
            shell=True,
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=_COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"the command did not end within {_COMMAND_S} s"
    if done.returncode:
        return "", f"exit status {done.returncode}: {done.stderr.strip()[-200:]}"
    return done.stdout.rstrip("\r\n"), "the command printed nothing"
