"""Tasks that run beside the connections, and for one of them.

Errors are logged. One that ends a task that the relay needs ends the relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from relay.io.loop import Loop
from relay.log import Log


class Tasks:
    """The relay's tasks.

    `stopping` is resolved when a task fails that the relay needs, and `failure` says which.
    """

    def __init__(self, loop: Loop, stopping: asyncio.Future[None], log: Log) -> None:
        self.failure = ""  # why the relay ended, if not by a signal
        self._loop = loop
        self._stopping = stopping
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something for one connection.

        It is cancelled at the end, and an error that it does not expect is logged.
        """
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._log_error)
        return task

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that the relay needs as long as it lives.

        Should it fail, the relay drains and ends, with `failure` set.
        """
        self.spawn(work).add_done_callback(self._fail)

    def cancel(self) -> None:
        """End all tasks."""
        for task in self._tasks:
            task.cancel()

    def _log_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._log.unforeseen("a background task failed", error)

    def _fail(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and not self._stopping.done():
            self.failure = f"{getattr(task.get_coro(), '__name__', 'a task')} ended: {error}"
            self._stopping.set_result(None)
