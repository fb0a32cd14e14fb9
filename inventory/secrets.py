"""Secrets by reference. A site file never holds a secret, only where it is.

`env:NAME` is an environment variable. `file:PATH` is the text of a file. `cmd:COMMAND` is the
output of a command, which the shell runs as the user who started this program. Line breaks at the
end of a value are not part of it.
"""

from __future__ import annotations

import os
import re
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
        # writeOnly: a secret that was written here by mistake is never shown
        json_schema_extra={
            "patternErrorMessage": "a reference: env:NAME, file:PATH or cmd:COMMAND",
            "writeOnly": True,
        },
    ),
]


class Secret:
    """A value that is shown only by `reveal()`, which only the code that sends it calls."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value."""
        return self._value

    def of_form(self, pattern: str, words: str) -> Secret:
        """Return the secret. Raises SecretError when all of it does not match the pattern.

        `words` complete the sentence "it is not".
        """
        if re.fullmatch(pattern, self._value):
            return self
        raise SecretError(
            "a secret has another form than its use needs",
            why=f"it is not {words}",
            next="look at the reference: it should lead to the key alone",
        )

    def within(self, text: str) -> Secret:
        """Return `text` with the value in place of its `{}`, as a secret.

        Raises SecretError when the value could end its line or its quotes.
        """
        if any(sign in self._value for sign in "\"\n\r\0"):
            raise SecretError(
                "a secret cannot be written into a configuration",
                why="it has a quotation mark or several lines, as no key or token has",
                next="look at the reference: it should lead to the key or token alone",
            )
        return Secret(text.replace("{}", self._value))

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


class SecretError(DerpfleetError):
    """A secret's reference cannot be read."""

    exit_code = 4


def read_secret(ref: str, *, base: Path) -> Secret:
    """Return the secret that `ref` names. A relative path is relative to `base`, the site's folder.

    Raises SecretError when it is missing, not text, or empty.
    """
    kind, _, rest = ref.partition(":")
    try:
        if kind == "env":
            value = os.environ.get(rest, "")
            why = f"the environment variable {rest} is not set, or empty"
        elif kind == "file":
            path = file_of(ref, base=base)
            value, why = path.read_text().rstrip("\r\n"), f"{path} is empty"
        else:
            value, why = _printed_by(rest, base)
    except OSError as error:
        value, why = "", f"{error.filename}: {error.strerror}"
    except UnicodeDecodeError:
        value, why = "", "it is not UTF-8 text"
    if not value:
        raise SecretError(
            f"secret {ref!r} cannot be read",
            why=why,
            next=f"make {ref!r} available, or change the reference in the site file",
        )
    return Secret(value)


def file_of(ref: str, *, base: Path) -> Path:
    """Return the file that a `file:` reference names."""
    # not Path.expanduser, which raises for the ~name of an unknown user
    return base / os.path.expanduser(ref.removeprefix("file:"))  # noqa: PTH111


def _printed_by(command: str, folder: Path) -> tuple[str, str]:
    """Return the output of the command, and a reason in case it is empty.

    The command keeps the operator's stdin and stderr, because a password manager may ask. So its
    words reach the operator's terminal, and no log.
    """
    try:
        done = subprocess.run(  # noqa: S602 - the operator's own command
            command,
            shell=True,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            timeout=_COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"the command did not end within {_COMMAND_S} s"
    if done.returncode:
        return "", f"the command ended with exit status {done.returncode}; its words are above"
    return done.stdout.rstrip("\r\n"), "the command printed nothing"
