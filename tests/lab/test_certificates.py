from __future__ import annotations

import socket
import ssl
import threading
from ipaddress import IPv4Address
from pathlib import Path

from lab.certificates import make_server_certificate


def test_a_client_that_trusts_the_authority_accepts_the_server(tmp_path: Path) -> None:
    authority, certificate, key = make_server_certificate("acme.derp.lab", IPv4Address("198.51.100.2"))
    (tmp_path / "server.pem").write_bytes(certificate + key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "server.pem")
    trusting = ssl.create_default_context(cadata=authority.decode())
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("acme.derp.lab", "198.51.100.2"):
        ours, theirs = socket.socketpair()
        with ours, theirs:

            def serve(end: socket.socket = theirs) -> None:
                with serving.wrap_socket(end, server_side=True) as connection:
                    connection.sendall(b"hello")

            thread = threading.Thread(target=serve)
            thread.start()
            with trusting.wrap_socket(ours, server_hostname=name) as connection:
                assert connection.recv(5) == b"hello"
            thread.join()
