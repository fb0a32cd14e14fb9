"""The prover's two node keys: made once on the controller, their public halves admitted by our
relays."""

from __future__ import annotations

import hmac
import json
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from inventory.errors import DerpfleetError
from inventory.secrets import Secret
from relay.core.handshake import format_key, make_private_key, public_key
from relay.core.wire import KEY_LEN


class ProverKeyError(DerpfleetError):
    """The prover's key file cannot be used."""


@dataclass(frozen=True)
class Prover:
    """The keys that let our two clients into a relay that verifies.

    `keys`: the two node private keys, 64 hex digits each; our relay knows their public halves.
    `mesh_key`: a Go derper's mesh key, 64 hex digits, which is its only way to admit a client
    without asking. It lets its holder watch and cut off every client, so no other relay has one.
    """

    keys: tuple[Secret, Secret]
    mesh_key: Secret | None = None

    @property
    def public(self) -> tuple[str, str]:
        """The public halves as our relay's -prober-keys has them: `nodekey:<64 hex>`."""
        first, second = (node_public(key) for key in self.keys)
        return first, second

    def at(self, relay: str, image: str) -> Prover:
        """Return the same keys with the mesh key that the derper of that name and image is given.

        It is derived, so that there is one secret to keep. One that leaks from a host opens no
        other relay, and not this one any more once it has a new image.
        """
        what = f"derpfleet mesh key of {relay} with {image}"
        derived = hmac.digest(bytes.fromhex(self.keys[0].reveal()), what.encode(), "sha256")
        return replace(self, mesh_key=Secret(derived.hex()))


def node_public(private: Secret) -> str:
    """Return `nodekey:<hex>` of a private key. Raises ValueError."""
    raw = bytes.fromhex(private.reveal())
    if len(raw) != KEY_LEN:
        raise ValueError("a node key is 64 hex digits")
    return format_key(public_key(raw))


def new_prover() -> Prover:
    """Make two fresh keys that no relay knows."""
    return Prover((Secret(make_private_key().hex()), Secret(make_private_key().hex())))


def read_prover(path: Path) -> Prover:
    """Read the keys in `path`; make them on first use.

    It is a JSON file, mode 0600: `{"PrivateKeys": ["privkey:<hex>", "privkey:<hex>"]}`.
    Raises ProverKeyError when others may read the file or it holds something else.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        try:
            return _write(path, new_prover())
        except OSError as error:
            raise _no_access("written", path, error) from None
    except OSError as error:
        raise _no_access("read", path, error) from None
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ProverKeyError("others may read the prover's keys", where=str(path), next=f"chmod 600 {path}")
    next_step = f"remove {path}; the next deploy makes new keys"
    return parse_prover(Secret(text), where=str(path), next_step=next_step)


def parse_prover(text: Secret, *, where: str, next_step: str) -> Prover:
    """Return the keys in the text of such a file. Raises ProverKeyError with these words."""
    try:
        held = json.loads(text.reveal())["PrivateKeys"]
        first, second = (Secret(key.removeprefix("privkey:")) for key in held)
        prover = Prover((first, second))
        prover.public  # noqa: B018 - raises if one is no key
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        what = "the prover's key file does not hold two keys"
        raise ProverKeyError(what, where=where, next=next_step) from None
    return prover


def _no_access(done: str, path: Path, error: OSError) -> ProverKeyError:
    why = error.strerror or str(error)
    return ProverKeyError(
        f"the prover's keys cannot be {done}",
        where=str(path),
        why=why,
        next="make the folders on that path yours",
    )


def _write(path: Path, prover: Prover) -> Prover:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"PrivateKeys": [f"privkey:{key.reveal()}" for key in prover.keys]}) + "\n"
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temp, path)  # never replaces a file that another run has made in the meantime
    except FileExistsError:
        return read_prover(path)
    finally:
        temp.unlink()
    return prover
