"""A look at a running host: what it says of itself, without its lock and without changing anything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.facts import Ask, Facts
from fleet.context import DEPLOY, Fleet
from inventory.choices import flavour_of
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles import paths, relay
from roles.wiring import wire

VERSION = re.compile(r'^version\{.*?version="([^"]+)"', re.M)
CLIENTS = re.compile(r"^derp_clients_local (\d{1,9})\b", re.M | re.A)
STAMP = re.compile(rf"^(\d{{4}}-\d\d-\d\d)T(\d\d)-(\d\d)-(\d\d)Z-{DEPLOY}-", re.M | re.A)

# Runs on the host. The least of three connects is the distance; the rest is waiting.
_DISTANCES = """
import json,socket,sys,time
found={}
for word in sys.argv[1:]:
    name,address,port=word.split(",")
    best=None
    for _ in range(3):
        began=time.time()
        try: socket.create_connection((address,int(port)),2).close()
        except OSError: continue
        ms=(time.time()-began)*1000
        best=ms if best is None else min(best,ms)
    found[name]=best
print(json.dumps(found))
"""
# Runs on the host: GET of a path from loopback. derper gives its certificate to who asks for its name only.
_FETCH = """
import http.client,socket,ssl,sys
scheme,name,port,path=sys.argv[1:]
line=socket.create_connection(("127.0.0.1",int(port)),3)
if scheme=="https": line=ssl._create_unverified_context().wrap_socket(line,server_hostname=name)
talk=http.client.HTTPConnection("127.0.0.1",int(port))
talk.sock=line
talk.request("GET",path)
print(talk.getresponse().read().decode())
"""
# derper tells loopback only, which is the container's own unless it has the host's network. Nothing is run in the container.
_FROM_WITHIN = """
import os,subprocess,sys
name,*fetch=sys.argv[1:]
pid=subprocess.check_output(["docker","container","inspect","--format","{{.State.Pid}}",name]).decode().strip()
os.execvp("nsenter",["nsenter","--target",pid,"--net",sys.executable,"-I","-c",*fetch])
"""


@dataclass(frozen=True)
class Look:
    """What a host says. Empty or None: it does not say. `distances_ms`: to the other hosts, by TCP. `trouble`: why there is nothing."""

    version: str = ""
    clients: int | None = None
    last_deploy: str = ""
    withdrawn: bool = False
    distances_ms: Mapping[str, float] = field(default_factory=dict)
    trouble: DerpfleetError | None = None


def look(fleet: Fleet, host: Host, others: Sequence[Host]) -> Look:
    """Asks one host. Never raises: what stands in the way is in `trouble`."""
    try:
        with fleet.look(fleet.login(host), _ask(host, others)) as session:
            return _read(host, session.facts)
    except DerpfleetError as error:
        error.host = error.host or host.name
        return Look(trouble=error)


def _ask(host: Host, others: Sequence[Host]) -> Ask:
    python = (host.ssh.python, "-I", "-c")
    places = [f"{other.name},{other.ipv4 or other.ipv6 or other.domain},{other.ports.https}" for other in others if other.name != host.name]
    return Ask(
        commands={
            "metrics": (*python, *_metrics(host)),
            "image": ("docker", "container", "inspect", "--format", "{{.Config.Image}}", paths.CONTAINER),
            "journal": ("ls", "-1r", "/var/lib/derpfleet/journal"),
            "distances": (*python, _DISTANCES, *places),
            **relay.ask_withdrawn(host).commands,
        }
    )


def _metrics(host: Host) -> tuple[str, ...]:
    """What prints a relay's metrics, which are called the same in both flavours."""
    if flavour_of(host).has_metrics_port:
        return (_FETCH, "http", host.domain, str(host.ports.metrics), "/metrics")
    wiring = wire(host)
    scheme = "https" if wiring.relay_has_tls else "http"
    return (_FROM_WITHIN, paths.CONTAINER, _FETCH, scheme, host.domain, str(wiring.relay.port), "/debug/varz")


def _read(host: Host, facts: Facts) -> Look:
    said = {name: output.stdout for name, output in facts.commands.items()}
    metrics, image = said.get("metrics", ""), said.get("image", "").strip()
    version, clients = VERSION.search(metrics), CLIENTS.search(metrics)
    deployed = STAMP.search(said.get("journal", ""))
    return Look(
        version=version[1] if version else image,
        clients=int(clients[1]) if clients else None,
        last_deploy=f"{deployed[1]} {deployed[2]}:{deployed[3]}:{deployed[4]}" if deployed else "",
        withdrawn=relay.is_withdrawn(host, facts),
        distances_ms=_distances(said.get("distances", "")),
    )


def _distances(text: str) -> dict[str, float]:
    """What the script printed, or nothing where a host's Python prints something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {name: ms for name, ms in found.items() if isinstance(ms, float)} if isinstance(found, dict) else {}
