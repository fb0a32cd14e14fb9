"""`python -m relay`: the relay, with derper's flags."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from relay import log, systemd
from relay.config import Config
from relay.flags import parse_or_exit
from relay.io.loop import Loop
from relay.keys.node_key import KeyFileError, NodeKey, read_or_create_key
from relay.mesh.workers import Worker, supervise
from relay.server import Relay

MIB = 2**20


def main() -> None:
    """Run until SIGTERM or SIGINT. Exits 1 with one sentence when the relay cannot start."""
    config = parse_or_exit()
    log.set_up(config.log_format)
    _keep_memory()
    notifier = systemd.Notifier(os.environ.get("NOTIFY_SOCKET", ""))
    try:
        key = NodeKey.generate() if config.dev else read_or_create_key(config.key_file)
        handed = [sock for _, sock in systemd.take_sockets(os.environ, os.getpid())]
    except (OSError, KeyFileError) as error:
        sys.exit(f"relay: {error}")
    if config.workers == 1:
        run(config, key, handed, notifier)
        return

    def work(worker: Worker, ready: Callable[[], None]) -> None:
        run(config, key, handed, systemd.Notifier(), worker=worker, ready=ready)

    # The parent answers systemd: only it is the service's main process.
    watchdog_s = systemd.watchdog_interval_s(os.environ, os.getpid())
    sys.exit(supervise(config.workers, work, notifier, watchdog_s))


def run(
    config: Config,
    key: NodeKey,
    handed: list[socket.socket],
    notifier: systemd.Notifier,
    *,
    worker: Worker | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Run one relay process on a loop of its own.

    Raises SystemExit with one sentence when it cannot start.
    """
    loop = Loop()
    asyncio.set_event_loop(loop)
    try:
        relay = Relay(config, loop, key, worker=worker, handed=handed, notifier=notifier)
        loop.run_until_complete(serve(relay, ready))
        if relay.tasks.failure:
            sys.exit(f"relay: {relay.tasks.failure}")
    except (OSError, ValueError, KeyFileError) as error:
        sys.exit(f"relay: {error}")
    finally:
        loop.close()


def _keep_memory() -> None:
    """Let glibc keep a few MiB of freed memory.

    Else it gives every freed buffer back to the kernel, and faults it in again. With senders that
    rotate over receivers a packet then costs 5 µs instead of 2.1 (virtual machine, 1,200 B, TLS).
    """
    with suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 4 * MIB)  # M_MMAP_THRESHOLD: above the largest joined write
        mallopt(-1, 8 * MIB)  # M_TRIM_THRESHOLD
        mallopt(-2, 1 * MIB)  # M_TOP_PAD


async def serve(relay: Relay, ready: Callable[[], None]) -> None:
    """Start the relay, serve until a signal comes, and drain."""
    for number in (signal.SIGTERM, signal.SIGINT):
        relay.loop.add_signal_handler(number, relay.stop)
    relay.loop.add_signal_handler(signal.SIGHUP, relay.reload)
    await relay.start()  # says that the relay is ready, and a signal may be the answer
    # The objects of the start stay: spare the collector looking at them. Connections leave no
    # cycles behind.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    ready()
    await relay.run()


if __name__ == "__main__":
    main()
