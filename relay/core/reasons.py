"""Why the relay refuses, closes or drops: closed sets, each member with its meaning. No I/O.

A member's value is a metric's label and a word in the log, so dashboards depend on it.
`relay_refusals` has `Refusal`, `Breach` and `Answer`; `relay_closes` has `Close` and `Breach`;
`relay_admissions` has `Answer`; `derp_packets_dropped` and `derp_bytes_dropped` have `Drop`. No
other file spells a reason.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Reason(str, Enum):
    """The base of the sets. A member is its label, and `meaning` says it in one line."""

    meaning: str

    def __new__(cls, label: str, meaning: str) -> Reason:
        member = str.__new__(cls, label)
        member._value_ = label
        member.meaning = meaning
        return member

    def __str__(self) -> str:
        """Return the label.

        Before Python 3.12, Enum's own would be the class and the member's name.
        """
        return str(self._value_)


class Breach(Reason):
    """The peer broke a rule of DERP, TLS or STUN; `ProtocolError` carries it."""

    # By a client, before it is admitted.
    NO_CLIENT_INFO = "no_client_info", "the first frame is no CLIENT_INFO"
    BAD_CLIENT_INFO_LENGTH = "bad_client_info_length", "CLIENT_INFO is too short, or longer than 256 KiB"
    BAD_KEY = "bad_key", "the key is zero or a low-order point, which agrees on no secret"
    BAD_BOX = "bad_box", "the box cannot be opened: not sealed with the client's key, or for another relay"
    BAD_CLIENT_INFO = "bad_client_info", "the JSON in CLIENT_INFO is not as Go's decoder takes it"
    BAD_APP_NAME = "bad_app_name", "the app name is longer than 32 characters, or not printable ASCII"
    TLS_HANDSHAKE_FAILED = "tls_handshake_failed", "the TLS handshake failed"
    TLS_ERROR = "tls_error", "a TLS record could not be read or written"
    # By a client that is admitted.
    SHORT_PACKET = "short_packet", "a packet's frame is shorter than its keys"
    OVERSIZED_PACKET = "oversized_packet", "a packet is longer than 64 KiB"
    UNKNOWN_FRAME_TOO_LONG = "unknown_frame_too_long", "a frame of unknown type is too long to be skipped"
    NOT_A_MESH_PEER = "not_a_mesh_peer", "the frame is for mesh peers only"
    BAD_NOTE_PREFERRED_LENGTH = "bad_note_preferred_length", "a NOTE_PREFERRED is not 1 byte long"
    BAD_PING_LENGTH = "bad_ping_length", "a PING has less than 8 bytes, or more than 1,000"
    BAD_WATCH_CONNS_LENGTH = "bad_watch_conns_length", "a WATCH_CONNS is not empty"
    BAD_CLOSE_PEER_LENGTH = "bad_close_peer_length", "a CLOSE_PEER is not one key"
    OVERSIZED_RUN = "oversized_run", "another worker's run of packets is too long"
    BAD_RUN = "bad_run", "the frames in another worker's run do not fill it"
    # By a server, as our own clients see it.
    NOT_UPGRADED = "not_upgraded", "the server answered the upgrade with an HTTP status"
    BAD_HTTP_ANSWER = "bad_http_answer", "the answer to the upgrade is not HTTP"
    CLOSED_BEFORE_GREETING = "closed_before_greeting", "the stream ended before the server named its key"
    NO_SERVER_KEY = "no_server_key", "the first frame is no SERVER_KEY"
    BAD_SERVER_KEY = "bad_server_key", "SERVER_KEY has another magic, or a wrong length"
    BAD_SERVER_INFO = "bad_server_info", "the JSON in SERVER_INFO cannot be read"
    FRAME_TOO_LONG = "frame_too_long", "a frame is longer than a client accepts"
    SHORT_PEER_GONE = "short_peer_gone", "a PEER_GONE is shorter than a key"
    SHORT_PEER_PRESENT = "short_peer_present", "a PEER_PRESENT is shorter than a key"
    SHORT_RESTARTING = "short_restarting", "a RESTARTING has less than 8 bytes"
    # In STUN.
    NOT_STUN = "not_stun", "the datagram is no STUN request or answer as Tailscale uses them"
    WRONG_TXID = "wrong_txid", "the answer belongs to another request"
    STUN_ERROR = "stun_error", "the server answered with a STUN error"
    NO_ADDRESS = "no_address", "the answer holds no address"


class Refusal(Reason):
    """The connection ended before its client was admitted."""

    TIMEOUT_TLS = "timeout_tls", "no TLS handshake in time"
    TIMEOUT_HTTP = "timeout_http", "no HTTP request in time"
    TIMEOUT_CLIENT_INFO = "timeout_client_info", "no CLIENT_INFO in time"
    TIMEOUT_ADMISSION = "timeout_admission", "no answer about the client's admission in time"
    CLOSED_IN_TLS = "closed_in_tls", "the client hung up in the TLS handshake"
    CLOSED_IN_CLIENT_INFO = "closed_in_client_info", "the client hung up after the upgrade"
    CLOSED_IN_ADMISSION = "closed_in_admission", "the client hung up while its admission was asked for"
    ACCEPT_LIMIT = "accept_limit", "more new connections per second than -accept-connection-limit allows"
    TOO_MANY_HANDSHAKES = "too_many_handshakes", "too many handshakes: the slowest of all was ended"
    TOO_MANY_HANDSHAKES_HERE = "too_many_handshakes_here", "too many of one address: its slowest was ended"
    TOO_MANY_CONNECTIONS = "too_many_connections", "too many connections of one address"
    NO_PROXY_HEADER = "no_proxy_header", "a trusted proxy's connection does not begin with a PROXY header"
    BAD_PROXY_HEADER = "bad_proxy_header", "the PROXY header cannot be read"
    BAD_HTTP = "bad_http", "the request is not HTTP/1.1"
    HTTP_BODY_TOO_LONG = "http_body_too_long", "a request has a body, which no page takes"
    TOO_MANY_HTTP_REQUESTS = "too_many_http_requests", "many requests were sent without awaiting answers"
    SLOW_READER = "slow_reader", "the client asks for more, and does not read the answers that it has"
    WEBSOCKET_WITHOUT_DERP = "websocket_without_derp", "the WebSocket does not offer the subprotocol derp"
    WEBSOCKET_CLOSED = "websocket_closed", "the WebSocket was closed; the label ends with the close code"
    TOO_EARLY = "too_early", "too many bytes arrived before the client was admitted"
    DISALLOWED_APP_NAME = "disallowed_app_name", "the app name is one of -disallow-app-names"
    MEMORY_CEILING = "memory_ceiling", "the relay uses more memory than -memory-ceiling"
    DRAINING = "draining", "the relay is about to end"


# By the timeout of the same stage; without HTTP, where every conversation ends so.
CLOSED_IN: Final = {
    Refusal.TIMEOUT_TLS: Refusal.CLOSED_IN_TLS,
    Refusal.TIMEOUT_CLIENT_INFO: Refusal.CLOSED_IN_CLIENT_INFO,
    Refusal.TIMEOUT_ADMISSION: Refusal.CLOSED_IN_ADMISSION,
}


class Close(Reason):
    """An admitted client's connection ended."""

    CLOSED = "closed", "the socket was closed"
    CLOSED_BY_CLIENT = "closed_by_client", "the client ended TLS, or its side of the TCP connection"
    CONNECTION_LOST = "connection_lost", "the socket failed: reset, unreachable or timed out"
    WEBSOCKET_CLOSED = "websocket_closed", "the WebSocket was closed; the label ends with the close code"
    WRITE_TIMEOUT = "write_timeout", "the client took no bytes for -tcp-write-timeout"
    CLOSED_BY_MESH_PEER = "closed_by_mesh_peer", "a mesh peer sent CLOSE_PEER for its key"
    REVOKED_NOT_IN_ALLOW_FILE = "revoked_not_in_allow_file", "its key was taken out of the allow file"
    REVOKED_VERIFY_URL_REFUSED = "revoked_verify_url_refused", "asked again, the controller refused it"
    REVOKED_TAILSCALED_UNKNOWN = "revoked_tailscaled_unknown", "asked again, tailscaled did not know it"
    DRAINED = "drained", "the relay ended, and said so"
    STOPPED = "stopped", "the relay was asked to end a second time"
    FAILED = "failed", "an error of the relay itself, which is in its log"


class Answer(Reason):
    """An answer to the question whether a client may use the relay."""

    OPEN = "open", "admitted, as every client is"
    IN_PROBER_KEYS = "in_prober_keys", "admitted: the key is in the file of -prober-keys"
    IN_ALLOW_FILE = "in_allow_file", "admitted: the key is in the allow file"
    NOT_IN_ALLOW_FILE = "not_in_allow_file", "refused: the key is not in the allow file"
    VERIFY_URL_ALLOWED = "verify_url_allowed", "admitted by the admission controller"
    VERIFY_URL_REFUSED = "verify_url_refused", "refused by the admission controller"
    VERIFY_URL_FAILED_OPEN = "verify_url_failed_open", "admitted: controller unreachable, failing open is on"
    VERIFY_URL_TIMEOUT = "verify_url_timeout", "refused: the admission controller did not answer in time"
    VERIFY_URL_UNREACHABLE = "verify_url_unreachable", "refused: the controller could not be reached"
    VERIFY_URL_STATUS = "verify_url_status", "refused: the controller answered with a status other than 200"
    VERIFY_URL_BAD_ANSWER = "verify_url_bad_answer", "refused: the controller's answer cannot be read"
    TAILSCALED_KNOWN = "tailscaled_known", "admitted: the host's tailscaled knows the node"
    TAILSCALED_UNKNOWN = "tailscaled_unknown", "refused: the host's tailscaled does not know the node"
    TAILSCALED_UNREACHABLE = "tailscaled_unreachable", "refused: the host's tailscaled could not be reached"
    TAILSCALED_ERROR = "tailscaled_error", "refused: the host's tailscaled answered with an error"
    NOT_ASKED = "not_asked", "not asked about: the connection ended before its turn came"
    CHECK_FAILED = "check_failed", "refused: the check itself failed, and its error is in the log"
    REVOKED = "revoked", "a connected client lost its admission"


# How a client's connection ends that is clearly refused when it is asked about again.
REVOKED_BY: Final = {
    Answer.NOT_IN_ALLOW_FILE: Close.REVOKED_NOT_IN_ALLOW_FILE,
    Answer.VERIFY_URL_REFUSED: Close.REVOKED_VERIFY_URL_REFUSED,
    Answer.TAILSCALED_UNKNOWN: Close.REVOKED_TAILSCALED_UNKNOWN,
}


class Drop(Reason):
    """A packet went nowhere.

    The names are derper's. So are the last three members, for which this relay drops nothing.
    """

    UNKNOWN_DEST = "unknown_dest", "no client has the destination's key"
    UNKNOWN_DEST_ON_FWD = "unknown_dest_on_fwd", "another relay forwarded it, and no client here has the key"
    GONE_DISCONNECTED = "gone_disconnected", "it waited for a client that disconnected"
    QUEUE_HEAD = "queue_head", "the receiver takes too few bytes: the oldest packet of its queue was dropped"
    QUEUE_TAIL = "queue_tail", "derper's: a full queue refused the newest packet"
    WRITE_ERROR = "write_error", "derper's: a write failed"
    DUP_CLIENT = "dup_client", "derper's: several connections of one key disabled each other"


class Down(Reason):
    """A link to another relay, or to another worker of this one, is down. In the log only."""

    CLOSED = "closed", "the other side closed it"
    WRITE_TIMEOUT = "write_timeout", "the other side took no bytes"
    NOT_ADMITTED = "not_admitted", "the other side did not admit this relay: is its mesh key the same?"
    SILENT = "silent", "nothing arrived for two minutes, although relays send a keep-alive every minute"
    MYSELF = "myself", "the other side is this relay itself"


WhyRefused = Refusal | Breach | Answer
WhyClosed = Close | Breach
