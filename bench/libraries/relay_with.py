"""`python -m bench.libraries.relay_with SIDE FLAGS...`: the relay with one part exchanged.

The side `ours` is the relay as it is.
"""

from __future__ import annotations

import sys

from relay.http import websocket
from relay.io import http_client


def exchange(side: str) -> None:
    """Put the library's class in the place of ours, before the relay's other modules import it."""
    if side == "wsproto":
        from bench.libraries import with_wsproto  # noqa: PLC0415  (other sides do without it)

        # It has the same interface.
        websocket.WebSocket = with_wsproto.WebSocket  # type: ignore[assignment,misc]
    elif side == "httpcore":
        from bench.libraries import with_httpcore  # noqa: PLC0415  (as above)

        http_client.HttpClient = with_httpcore.HttpClient  # type: ignore[assignment,misc]  # as above


if __name__ == "__main__":
    exchange(sys.argv.pop(1))
    from relay.__main__ import main

    main()
