"""Frames that carry no packet: their rules and their effects. Unknown ones are skipped. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.core import wire
from relay.core.reasons import Breach
from relay.core.wire import KEY_LEN, ProtocolError

if TYPE_CHECKING:
    from relay.core.session import Session

SETTLING_S: Final = 5.0  # a first choice of home within this time is no move

Action = Callable[["Session", bytes], None]


def action(session: Session, kind: int, length: int) -> Action:
    """Return the function for the payload of such a frame.

    Raises ProtocolError if the frame's header breaks a rule already.
    """
    rule = (_RULES_OF_WORKERS if session.sibling else _RULES).get(kind)
    if rule is None:
        if length > wire.MAX_UNKNOWN:
            raise ProtocolError(Breach.UNKNOWN_FRAME_TOO_LONG)
        return _skip
    mesh_only, least, most, wrong_length, act = rule
    if mesh_only:
        session.check_mesh()
    if not least <= length <= most:
        raise ProtocolError(wrong_length)
    return act


def _skip(session: Session, _payload: bytes) -> None:
    session.switch.counts.unknown_frames += 1


def _note_preferred(session: Session, payload: bytes) -> None:
    home = payload != b"\0"
    if home is session.home:
        return
    session.home = home
    if session.switch.clock() - session.connected_at > SETTLING_S:
        if home:
            session.switch.counts.home_moves_in += 1
        else:
            session.switch.counts.home_moves_out += 1


def _ping(session: Session, payload: bytes) -> None:
    session.switch.counts.got_ping += 1
    if session.outbox.pong(payload[:8]):
        session.switch.counts.sent_pong += 1


def _pong(session: Session, payload: bytes) -> None:
    session.switch.confirmations.confirm(session, payload[:8])


def _watch(session: Session, _payload: bytes) -> None:
    session.switch.watch(session)


def _close_peer(session: Session, payload: bytes) -> None:
    session.switch.close_peer(payload, siblings_too=not session.sibling)


# Frame type -> (mesh peers only, least and most length, the breach of another length, action).
_RULES: Final[dict[int, tuple[bool, int, int, Breach, Action]]] = {
    wire.NOTE_PREFERRED: (False, 1, 1, Breach.BAD_NOTE_PREFERRED_LENGTH, _note_preferred),
    wire.PING: (False, 8, wire.MAX_PING, Breach.BAD_PING_LENGTH, _ping),
    wire.WATCH_CONNS: (True, 0, 0, Breach.BAD_WATCH_CONNS_LENGTH, _watch),
    wire.CLOSE_PEER: (True, KEY_LEN, KEY_LEN, Breach.BAD_CLOSE_PEER_LENGTH, _close_peer),
}
_RULES_OF_WORKERS: Final = {
    **_RULES,
    wire.PONG: (True, 8, wire.MAX_PING, Breach.BAD_PING_LENGTH, _pong),
}
