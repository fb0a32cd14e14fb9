"""Sockets, TLS, the event loop, and outgoing HTTP and DNS."""
