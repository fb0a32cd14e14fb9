"""Each `next` of a broken rung changes what the rung names, or only reads."""

from __future__ import annotations

import inspect
import re
import shlex
from functools import cache

import roles
import tasks
from engine.plan import compile_plan
from probe.proof import Rung
from tests.roles.cases import load, shipment

VERBS = {task.name: task for task in tasks.verbs}
UNCHANGED = "; if that changes nothing: "
# The cause, and the resource of the role that is not as the role has it: its fix ends the cause.
# Where the host may be as the site file says, another step has to follow.
DRIFT = {
    "nothing listens": ("service:nginx.service", "service:derpfleet-relay.socket"),
    "closed in the provider's|packet filter": ("firewall:derpfleet",),
    "another (web server|site)|not a DERP server: another|default site|by itself": (
        "file:/etc/nginx/sites-enabled/zz-derpfleet-http.conf",
        "file:/etc/nginx/sites-enabled/zz-derpfleet-https.conf",
    ),
    "drops the headers|proxy_read_timeout": ("file:/etc/nginx/sites-enabled/zz-derpfleet-https.conf",),
    "does not know them": ("file:/var/lib/derpfleet-relay/prober.keys",),
}
RESTART = r"on hk1: (systemctl restart derpfleet-relay\.service|docker restart derpfleet-derper), then .*"


def check_next(rung: Rung) -> None:
    """Fail if the step is a deploy that does nothing on a host that is as the site file says."""
    for command in re.findall(r"invoke [^;,]*?(?=;|,| shows|$)", rung.next):
        _check_command(command)
    last = rung.next.rpartition(UNCHANGED)[2]
    only = re.fullmatch(r"(?:.*, then )?invoke deploy --host hk1 --only (role:\w+)", last)
    if not only:
        assert not re.fullmatch(r"invoke deploy --host hk1", last) or rung.name in ("map", "tls"), rung
        assert not last.startswith("on hk1:") or re.fullmatch(RESTART, last), rung
        return
    drifting = [ids for cause, ids in DRIFT.items() if re.search(cause, rung.cause)]
    assert drifting, f"which resource differs then? {rung}"
    assert set(drifting[0]) & _planned(only[1]), rung


@cache
def _planned(only: str) -> set[str]:
    """Return the ids of the plan of a part, on a host that is as the site file says."""
    host, site, facts = load("bare-deployed")
    resources = roles.compile_host(host, site, facts, shipment(host))
    return {each.id for each in compile_plan(resources, mode="apply", only=[only]).resources}


def _check_command(command: str) -> None:
    """Fail if the command is none of ours, or has an option that its verb lacks."""
    _, verb, *words = shlex.split(command)
    known = inspect.signature(VERBS[verb].body).parameters
    for word in words:
        assert not word.startswith("--") or word[2:].replace("-", "_") in known, command
