"""Tailscale's own control server, whose policy has the map."""
