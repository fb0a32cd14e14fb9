"""The ledger of a rollout: its events, each on disk before the action that it leads to.

It lies with the lease, so that any controller can go on from it, and under .runs for the reader.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from engine import cache
from engine.rollout.state import RolloutEvent
from fleet.rollout.lease import RolloutLease
from fleet.shared.last_rollout import LedgerHead
from inventory.rollout import RolloutPolicy


def new_head(hosts: Sequence[str], policy: RolloutPolicy, **more: Any) -> LedgerHead:
    """Return the head of a new ledger, of now and of this user."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime(now))
    return LedgerHead(
        rollout=f"{stamp}-{secrets.token_hex(2)}",
        who=f"{getpass.getuser()}@{socket.gethostname()}",
        since=now,
        hosts=tuple(hosts),
        policy=policy,
        **more,
    )


class RolloutLedger:
    """The ledger of the rollout under way."""

    def __init__(self, folder: Path, lease: RolloutLease, head: LedgerHead) -> None:
        """Go on with the ledger of that rollout. `folder`: where the site's records are."""
        self._folder, self._lease, self._head = folder, lease, head
        self.path = folder / "rollouts" / f"{head.rollout}.jsonl"

    def begin(self) -> None:
        """Write the first line."""
        self._write({**asdict(self._head), "policy": self._head.policy.model_dump()}, begins=True)

    def note(self, events: Sequence[RolloutEvent]) -> None:
        """Write events. Raises Unreachable when the lease is lost, CacheError."""
        self._write(*map(_line, events), begins=False)

    def _write(self, *lines: Mapping[str, Any], begins: bool) -> None:
        self._lease.note(*lines, begins=begins)
        with cache.access_to(self._folder):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "w") as file:
                file.writelines(json.dumps(line, sort_keys=True) + "\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())


def _line(event: RolloutEvent) -> dict[str, Any]:
    """Return the line of an event, without what it leaves empty."""
    said = {one.name: getattr(event, one.name) for one in fields(event)}
    return {"at": round(time.time(), 3)} | {
        name: value for name, value in said.items() if value not in ("", 0, ())
    }
