"""The protocol without I/O: frames, sessions, the switch, outboxes, limits, STUN."""
