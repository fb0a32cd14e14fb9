"""Secrets by reference. A site file never holds a secret, only where it lies.

`env:NAME` an environment variable, `file:PATH` the file's text without its last line break, `cmd:COMMAND` what the
command prints (run by the shell, as the person who started us).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Annotated

from pydantic import Field

from inventory.errors import DerpfleetError

SecretRef = Annotated[str, Field(pattern=r"^(env|file|cmd):.+")]


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


class SecretError(DerpfleetError):
    """A secret's reference leads nowhere."""

    exit_code = 4


def read_secret(ref: str, *, base: Path) -> Secret:
    """The secret that `ref` names; a relative file is relative to `base`, the site file's folder.

    Raises SecretError when it is not there or is empty.
    """
    kind, _, rest = ref.partition(":")
    next_step = f"make {ref!r} available, or change the reference in the site file"
    if kind == "env":
        value = os.environ.get(rest, "")
        why = f"the environment has no {rest}"
    elif kind == "file":
        path = base / Path(rest).expanduser()
        try:
            value, why = path.read_text().rstrip("\n"), f"{path} is empty"
        except OSError as error:
            value, why = "", f"{path}: {error.strerror}"
    else:
        done = subprocess.run(rest, shell=True, capture_output=True, text=True, cwd=base, timeout=60)  # noqa: S602 - the person's own command
        value, why = done.stdout.rstrip("\n"), f"exit status {done.returncode}: {done.stderr.strip()[-200:]}"
        if done.returncode != 0:
            value = ""
    if not value:
        raise SecretError(f"secret {ref!r} cannot be read", why=why, next=next_step)
    return Secret(value)
