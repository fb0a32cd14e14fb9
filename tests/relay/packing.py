"""Frames that other implementations send, and this relay only reads or rewrites in place."""

from __future__ import annotations

from relay.core import wire


def pack_recv_packet(source: bytes, packet: bytes) -> bytes:
    """Pack the server's packet for a client."""
    return wire.pack_frame(wire.RECV_PACKET, source + packet)


def pack_forward_packet(source: bytes, destination: bytes, packet: bytes) -> bytes:
    """Pack a mesh peer's packet for the server."""
    return wire.pack_frame(wire.FORWARD_PACKET, source + destination + packet)


def pack_note_preferred(home: bool) -> bytes:
    """Pack a client's note to the server: "this relay is (not) my home"."""
    return wire.pack_frame(wire.NOTE_PREFERRED, b"\1" if home else b"\0")


def pack_health(problem: str) -> bytes:
    """Pack the problem of a client's connection, or "" when there is none any more."""
    return wire.pack_frame(wire.HEALTH, problem.encode())
