"""The relay's own keys on disk: derper's key file, and the mesh key.

derper's key file is JSON, `{"PrivateKey": "privkey:<64 hex>"}`. An existing one works as it is,
with the same public key. Private keys are Curve25519. Errors are `KeyFileError`, one sentence that
names the file; no message contains a key.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from relay.core.handshake import make_private_key, parse_hex_key, parse_mesh_key, public_key
from relay.golang.json import parse_object

T = TypeVar("T")


class KeyFileError(Exception):
    """A key file that cannot be used."""


@dataclass(frozen=True)
class NodeKey:
    """A Curve25519 key pair, 32 bytes each. The private half stays out of repr()."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def of(cls, private: bytes) -> NodeKey:
        return cls(private, public_key(private))

    @classmethod
    def generate(cls) -> NodeKey:
        """Make a new key, clamped as Tailscale stores them."""
        return cls.of(make_private_key())


def parse_key_file(data: bytes) -> NodeKey:
    """Parse derper's key file. Raises ValueError."""
    text = parse_object(data).get("privatekey")
    if not isinstance(text, str):
        raise ValueError('has no "PrivateKey"')
    try:
        private = parse_hex_key(text, "privkey:")
    except ValueError as e:
        raise ValueError(f'"PrivateKey" {e}') from None
    if not any(private):
        raise ValueError('"PrivateKey" is all zero')
    return NodeKey.of(private)


def render_key_file(key: NodeKey) -> bytes:
    """Return the bytes that derper writes for this key."""
    return json.dumps({"PrivateKey": f"privkey:{key.private.hex()}"}, indent="\t").encode()


def read_or_create_key(path: str | os.PathLike[str]) -> NodeKey:
    """Return the key in the file. A missing file is made (0600), with its directories.

    Raises KeyFileError.
    """
    file = Path(path)
    try:
        with suppress(FileNotFoundError):
            return _read_key(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_new(file, render_key_file(NodeKey.generate()), 0o600)
        return _read_key(file)
    except OSError as e:
        raise KeyFileError(f"key file {file}: {e.strerror or e}") from e


def _read_key(file: Path) -> NodeKey:
    try:
        return parse_key_file(file.read_bytes())
    except ValueError as e:
        advice = "put the right one there, or remove it to get a new key"
        raise KeyFileError(f"key file {file} {e}; {advice}") from None


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole and durable. An existing file stays as it is. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as f:
            os.fchmod(descriptor, mode)  # whatever the umask is
            f.write(data)
            f.flush()
            os.fsync(descriptor)
        # A link, unlike rename, does not replace another process's file.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_mesh_key(path: str | os.PathLike[str]) -> bytes:
    """Return the mesh key in a file. Raises KeyFileError."""
    return read_private_file(Path(path), parse_mesh_key, kind="mesh key file", encoding="ascii")


def read_private_file(
    path: Path,
    parse: Callable[[str], T],
    *,
    kind: str,
    encoding: str,
    error: type[KeyFileError] = KeyFileError,
) -> T:
    """Return the file's text as `parse` reads it. Raises `error`, which names `kind` and path.

    The text of a ValueError of `parse` has to continue a sentence that begins with the file.
    """
    try:
        return parse(path.read_text(encoding))
    except OSError as e:
        raise error(f"{kind} {path}: {e.strerror or e}") from e
    except UnicodeDecodeError:
        raise error(f"{kind} {path} is not text") from None
    except ValueError as e:
        raise error(f"{kind} {path} {e}") from None
