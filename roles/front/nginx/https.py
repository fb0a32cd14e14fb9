"""The https server in front of the relay."""

from __future__ import annotations

from engine.facts import Facts
from engine.health import Http
from engine.render import render
from engine.resource import Command, File, Resource, Service
from inventory.model import Host
from roles.contract import Issued
from roles.front.nginx import http, neighbours, overrides, places
from roles.wiring import LOOPBACK


def https_resources(host: Host, facts: Facts, certificate: Issued, relay: str) -> list[Resource]:
    """Return the server that has the certificate and hands connections on to the relay.

    `relay`: the id of the running relay.
    """
    path = f"{neighbours.folder(facts)}/{neighbours.HTTPS_NAME}"
    after = (*certificate.ready, http.HTTP_READY)
    # Moved back, not written anew: the agent is only sent content that was missing when the run
    # began.
    argv, unless = ("mv", http.ASIDE, path), ("test", "-e", path)
    back = Command(title="https server put back", argv=argv, unless=unless, needs=after)
    fixed = [back] if http.is_moved(host, facts, certificate) else []
    conf = File(
        path=path,
        content=render(
            "nginx-https.conf.j2",
            host=host,
            listens=places.listens(host, facts, host.ports.https, neighbours.HTTPS_NAME, tls=True),
            fullchain=certificate.fullchain,
            key=certificate.key,
            instead_of_http=overrides.lines(facts),
        ),
        needs=(*after, *(command.id for command in fixed)),
    )
    probe = f"https://{host.domain}:{host.ports.https}/derp/probe"
    service = Service(
        unit=http.UNIT,
        reload_on=(conf.id, *certificate.ready, *(command.id for command in fixed)),
        before=("nginx", "-t"),
        listens=places.sockets(host, facts, host.ports.https, neighbours.HTTPS_NAME),
        healthy=(Http(url=probe, connect=f"{LOOPBACK}:{host.ports.https}", insecure=True),),
        watch=neighbours.watches(facts),
        needs=(relay,),
    )
    return [*fixed, conf, service]
