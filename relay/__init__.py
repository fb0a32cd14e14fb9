"""A DERP and STUN relay that Tailscale clients use.

`python -m relay -help` lists its flags, which are derper's.
"""

from pathlib import Path

__version__ = "0.1.0"
# Which release runs: a deploy puts each into a folder with its id, behind a link that it moves
# later. Elsewhere "".
_FOLDER = Path(__file__).resolve().parent.parent
__release__ = _FOLDER.name if _FOLDER.parent.name == "releases" else ""
