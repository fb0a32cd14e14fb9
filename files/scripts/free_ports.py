"""Fail when a program listens on one of these TCP ports: `PORT …`."""

import socket
import sys

for port in sys.argv[1:]:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(("", int(port)))
        trial.listen()
