"""A DERP and STUN relay that Tailscale clients use.

`python -m relay -help` lists its flags, which are derper's.
"""

__version__ = "0.1.0"
