"""What runs beside the connections, and for one of them: errors are logged, and what the relay
needs may not end by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from relay.io.loop import Loop
from relay.log import Log


class Tasks:
    """Holds the relay's tasks.

    `stopping` is resolved when one fails that the relay needs, and `failure` says which.
    """

    def __init__(self, loop: Loop, stopping: asyncio.Future[None], log: Log) -> None:
        self.failure = ""  # what made the relay end, if it was no signal
        self._loop = loop
        self._stopping = stopping
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something for one connection; it is cancelled at the end, and an error that it does
        not expect is logged.
        """
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._tell_error)
        return task

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that the relay needs as long as it lives: should it fail, the relay drains
        and ends, with `failure` set.
        """
        self.spawn(work).add_done_callback(self._fail)

    def cancel(self) -> None:
        """End them all."""
        for task in self._tasks:
            task.cancel()

    def _tell_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._log.unforeseen("a background task failed", error)

    def _fail(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and not self._stopping.done():
            self.failure = f"{getattr(task.get_coro(), '__name__', 'a task')} ended: {error}"
            self._stopping.set_result(None)
