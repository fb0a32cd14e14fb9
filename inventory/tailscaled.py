"""The words of a relay's host about who may use the relay, read; and tailscaled's, judged.

Pure. Roles judge them before a deploy, and the proof after it. The host's own tailscaled has the
usual names, the one that we keep there has those below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

NAME = "derpfleet-tailscaled"
UNIT = f"{NAME}.service"
SOCKET = f"/run/{NAME}/tailscaled.sock"
PROGRAM = "/opt/derpfleet/bin/tailscale"
TAILSCALES = "https://controlplane.tailscale.com"
"""Tailscale's own login server."""
STATE = "tailnet"
"""The name, among a host's facts, of the state that files/scripts/join_tailnet.py prints."""
CAUSES: Mapping[str, tuple[str, str]] = {
    "socket": (
        "no tailscaled answers on that socket: it does not run, or it has another socket",
        "systemctl status {unit}",
    ),
    "login": (
        "that tailscaled is logged out, stopped or expired, so it knows no node",
        "{program} --socket={judge} status",
    ),
    "age": (
        "that tailscaled is too old to look up node keys: 1.24 and newer can",
        "{program} --socket={judge} version",
    ),
    "localapi": ("that tailscaled does not answer the question", "{program} --socket={judge} status"),
}
"""The steps where files/scripts/ask_tailscaled.py may fail: the cause, and a command to look."""
_SOON_S = 30 * 86400


def names(socket: str) -> Mapping[str, str]:
    """Return the unit and the command line program of the tailscaled with that socket."""
    ours = {"unit": UNIT, "program": PROGRAM}
    return ours if socket == SOCKET else {"unit": "tailscaled", "program": "tailscale"}


def needs_auth_key(state: str) -> bool:
    """Whether our tailscaled in that state joins with a key only; "": it is not there yet."""
    return state.strip() in ("", "NeedsLogin", "Elsewhere")


def read(text: str) -> Mapping[str, Any]:
    """Return the answer of a script that asks for admission; empty for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("step"), str) else {}


def warnings(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield what holds today and will not for long, as sentences."""
    if answer.get("peers") == 0:
        yield (
            "the tailscaled of the relay's host knows no other node, so the relay refuses everybody: its "
            "policy hides them from it. Add a rule that has the relay's node as source or destination of all"
        )
    left = answer.get("key_left_s")
    if isinstance(left, int | float) and -1e10 < left < _SOON_S:
        yield (
            f"the node key of the tailscaled on the relay's host expires in {left / 86400:.0f} days, and the "
            "relay refuses everybody then: tag that node, or disable its key expiry"
        )
