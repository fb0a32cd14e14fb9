"""The https server in front of the relay, and the last word: what is served is what is on disk."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.render import render
from engine.resource import Command, File, Http, Resource, Service
from inventory.model import Host, Site
from roles import certificate, nginx, paths, relay, sites
from roles.wiring import wire

ASK = Ask()


def resources(host: Host, site: Site, facts: Facts, ship: Shipment) -> list[Resource]:
    if wire(host).relay_has_tls:
        return [_served(relay.unit_id(host))]
    fullchain, key = certificate.files(host)
    path = f"{sites.folder(facts)}/{sites.HTTPS_NAME}"
    after = (*certificate.ready(host), nginx.HTTP_READY)
    # Moved back, not written anew: the agent is only sent what was not there when the run began.
    back = [Command(title="https server put back", argv=("mv", nginx.ASIDE, path), unless=("test", "-e", path), needs=after)]
    mended = back if nginx.taken_out(facts) else []
    conf = File(
        path=path,
        content=render(
            "nginx-https.conf.j2",
            host=host,
            listens=sites.listens(facts, host.ports.https, sites.HTTPS_NAME, tls=True),
            fullchain=fullchain,
            key=key,
        ),
        needs=(*after, *(command.id for command in mended)),
    )
    probe = f"https://{host.domain}:{host.ports.https}/derp/probe"
    service = Service(
        unit=nginx.UNIT,
        reload_on=(conf.id, *certificate.ready(host), *(command.id for command in mended)),
        before=("nginx", "-t"),
        healthy=(Http(url=probe, connect=nginx.connect(facts, host.ports.https), insecure=True),),
        watch=sites.watches(facts),
        needs=(relay.unit_id(host),),
    )
    return [*mended, conf, service, _served(service.id)]


def _served(after: str) -> Command:
    """Fails loudly when the host serves another certificate than the one on disk, after one more reload."""
    return Command(
        title="served certificate",
        argv=(paths.CERTIFICATE_PROGRAM, "deploy"),
        unless=(paths.CERTIFICATE_PROGRAM, "served"),
        needs=(after,),
    )
