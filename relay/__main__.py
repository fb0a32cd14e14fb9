"""`python -m relay`: the relay, with derper's flags."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

import uvloop

from relay import log
from relay.flags import Config, parse_or_exit
from relay.keyfile import KeyFileError
from relay.server import Relay


def main() -> None:
    """Run until SIGTERM or SIGINT. Exits 1 with one sentence when the relay cannot start."""
    config = parse_or_exit()
    log.set_up(config.log_format)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(serve(config, loop))
    except (OSError, ValueError, KeyFileError) as error:
        sys.exit(f"relay: {error}")
    finally:
        loop.close()


async def serve(config: Config, loop: asyncio.AbstractEventLoop) -> None:
    """One relay, from start to drained."""
    relay = Relay(config, loop)
    await relay.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, relay.stop)
    loop.add_signal_handler(signal.SIGHUP, relay.reload)
    # What start-up made lives for ever: the collector need not look at it. Connections leave no cycles behind.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await relay.run()


if __name__ == "__main__":
    main()
