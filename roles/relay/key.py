"""The relay's own key, which every program uses."""

from __future__ import annotations

from engine.facts import Facts
from engine.resource import Absent, Command
from engine.scripts import script
from roles import paths

# Reuse the key of a relay set up by hand, so that its public key stays the same. Others may be
# able to write to that directory, so follow no link and accept nothing but a key: a planted link
# could expose a file that only root may read.
_OLD_KEY = "/var/lib/derper/derper.key"


def made(facts: Facts) -> Command:
    """Return the command that makes the relay's key, unless it is there."""
    return Command(
        title="relay key",
        argv=(facts.python_executable, "-I", "-c", script("make_key"), paths.KEY, paths.USER, _OLD_KEY),
        creates=paths.KEY,
        needs=(f"directory:{paths.STATE}", f"group:{paths.USER}"),
    )


def absent(*, needs: tuple[str, ...] = ()) -> Absent:
    """Return the removal of the key after `needs`: a later deploy makes a new public key."""
    return Absent(path=paths.KEY, needs=needs)
