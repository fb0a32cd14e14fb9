"""The stage: real hosts, an ACME server, headscale and tailscale clients on one machine.

They run in their own namespaces. `up` takes about ten seconds once packages and programs are in
.cache.

>>> import lab
>>> stage = lab.up(Path(".lab"), progress=print)
>>> stage.run_in("hk1", ["systemctl", "is-active", "ssh"]).stdout
>>> lab.down(Path(".lab"))
"""

from lab.errors import LabError
from lab.lab import Lab
from lab.lifecycle import down, load, status, up

__all__ = ["Lab", "LabError", "down", "load", "status", "up"]
