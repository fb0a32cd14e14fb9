"""A DERP and STUN relay for Tailscale clients: `python -m relay -h`."""

__version__ = "0.1.0"
