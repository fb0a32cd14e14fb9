"""TLS on memory BIOs that all connections share, and the certificate it serves.

The BIOs are empty between any two calls, because OpenSSL takes a partial record into its own
buffer. A pair per connection would keep the size of its largest burst as long as it lives (measured
after 1 MB each: 279 kB per connection; shared: 14 kB, as if idle). A caller that writes to INCOMING
must leave it empty, also after an error.
"""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

from relay.core.reasons import Breach, Close, WhyClosed

INCOMING: Final = ssl.MemoryBIO()
OUTGOING: Final = ssl.MemoryBIO()
RECORD: Final = 16 * 1024


CLOSED: Final = Close.CLOSED_BY_CLIENT


class Channel:
    """The layer between the socket's bytes and the plain ones. This one changes nothing.

    `closed` is the reason why no more bytes can come. It is None while the peer has neither ended
    nor broken its TLS.
    """

    __slots__ = ()
    tls: ssl.SSLObject | None = None
    closed: WhyClosed | None = None

    def unseal(self, data: bytes | memoryview) -> bytes:
        """Return the plain bytes that `data` completes. Then look at `take_reply` and `closed`."""
        return bytes(data)

    def take_reply(self) -> bytes:
        """Return TLS's own bytes that the last `unseal` wants written."""
        return b""

    def seal(self, data: bytes | bytearray) -> bytes | bytearray:
        """Return the bytes to write to the socket for plain `data`."""
        return data

    def close_notify(self) -> bytes:
        """Return the bytes that end TLS, to write last."""
        return b""


class TlsChannel(Channel):
    """TLS, for everything that is not hot (link.py has the same in the shape that is)."""

    __slots__ = ("_shaken", "closed", "tls")

    def __init__(self, context: ssl.SSLContext) -> None:
        self.tls: ssl.SSLObject = context.wrap_bio(INCOMING, OUTGOING, server_side=True)
        self._shaken = False
        self.closed: WhyClosed | None = None

    @property
    def shaken(self) -> bool:
        """Whether the TLS handshake is done."""
        return self._shaken

    def take_reply(self) -> bytes:
        return OUTGOING.read()

    def unseal(self, data: bytes | memoryview) -> bytes:
        INCOMING.write(data)
        plain = bytearray()
        try:
            if not self._shaken:
                self.tls.do_handshake()
                self._shaken = True
            while INCOMING.pending:
                part = self.tls.read(RECORD)
                if not part:
                    self.closed = CLOSED
                    break
                plain += part
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.closed = Breach.TLS_ERROR if self._shaken else Breach.TLS_HANDSHAKE_FAILED
        INCOMING.read()
        return bytes(plain)

    def seal(self, data: bytes | bytearray) -> bytes:
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
        return OUTGOING.read()

    def close_notify(self) -> bytes:
        """Return TLS's close_notify, so that the client sees a proper end."""
        with suppress(ssl.SSLError):  # unwrap would wait for the client's own
            self.tls.unwrap()
        return OUTGOING.read()


def make_server_context(chain: Path, key: Path, meta_certificate: str) -> ssl.SSLContext:
    """Return a context that serves `chain` with the fast start's certificate behind it.

    The client's preference decides the cipher: Tailscale's clients ask for AES-128-GCM. Session
    tickets would cost more than they save, because those clients do not resume. Raises OSError and
    ssl.SSLError (an OSError) if a file is unreadable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    text = chain.read_text("ascii")
    # The ssl module loads chains from files only; this one is never on a disk.
    descriptor = os.memfd_create("chain")
    try:
        os.write(descriptor, f"{text.rstrip()}\n{meta_certificate}".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", key)
    finally:
        os.close(descriptor)
    return context
