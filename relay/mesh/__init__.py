"""Links to other relays and to other worker processes."""
