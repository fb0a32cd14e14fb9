"""nginx hands TLS on by the name in its hello: to the relay, or to the other sites.

The relay has the certificate. It learns the clients' addresses from headers of the PROXY protocol.
Port 80 is as in `http`, and nginx's other sites are read by `nginx` for both of them. Another site
shares port 443 when it listens on loopback with `ssl proxy_protocol`; we move none there.
"""

from __future__ import annotations

from dataclasses import replace
from posixpath import join

from engine.facts import Ask, Facts
from engine.health import Http
from engine.render import render
from engine.resource import File, Package, Resource, Service
from inventory.model import Host
from roles import distributions
from roles.contract import Challenge, Issued, ReloadTest, never, nothing
from roles.front.nginx import http, neighbours, places
from roles.front.nginx.refusals import refusals as refusals_of_servers
from roles.front.nginx.refusals import warnings as warnings_of_servers
from roles.readers.nginx_config import Listen, parse_dump
from roles.wiring import LOOPBACK

ASK = neighbours.ASK
ASK_ABSENT = Ask()
RELOAD: tuple[str, ...] = ()
TEST: ReloadTest | None = None

callers, warnings = http.callers, warnings_of_servers
# `nginx` removes all our files from nginx, and knows its listeners and its other sites.
replaced = absent = absence_refusals = nothing
shares, open_ports, other_sites = never, nothing, nothing
test_units = absent_test_units = nothing  # no new certificate reloads nginx


def challenge(host: Host, facts: Facts) -> Challenge:
    """Return how challenges are answered: as with `nginx`, but without the unit of its test."""
    shared = http.challenge(host, facts)
    tested = {resource.id for resource in http.test_units()}
    return replace(shared, needs=tuple(name for name in shared.needs if name not in tested))


def http_resources(host: Host, facts: Facts, certificate: Issued) -> list[Resource]:
    """Return nginx with our server of the http port, and our stream, which needs no certificate.

    One reload takes both: other sites that were moved behind the stream answer at once.
    """
    content = render(
        "nginx-stream.conf.j2",
        host=host,
        listens=places.listens(host, facts, host.ports.https, neighbours.STREAM_NAME, tls=False),
        by_address=host.is_address,
        default=next(iter(_behind(facts)), f"{LOOPBACK}:{host.ports.backend}"),
    )
    family = distributions.of(facts).family
    module = Package(package=family.nginx.stream_package, needs=("package:nginx",))
    stream = File(path=neighbours.stream_file(facts), content=content, needs=(module.id,))
    former = f"{neighbours.folder(facts)}/{neighbours.HTTPS_NAME}"
    return [module, *http.port_80(host, facts, certificate, former=former, beside=(stream,))]


def https_resources(host: Host, facts: Facts, certificate: Issued, relay: str) -> list[Resource]:
    """Return nginx, which has to lead to the running relay."""
    probe = f"https://{host.domain}:{host.ports.https}/derp/probe"
    return [
        Service(
            unit=http.UNIT,
            reload_on=(f"file:{neighbours.stream_file(facts)}",),
            before=("nginx", "-t"),
            listens=places.sockets(host, facts, host.ports.https, neighbours.STREAM_NAME),
            healthy=(Http(url=probe, connect=f"{LOOPBACK}:{host.ports.https}", insecure=True),),
            watch=neighbours.watches(facts),
            needs=(relay, http.HTTP_READY),
        )
    ]


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return the reasons against our stream, and against our server of the http port."""
    found = refusals_of_servers(host, facts)
    return found if found or not neighbours.dump(facts) else [*_main(host, facts), *_taken(host, facts)]


def _main(host: Host, facts: Facts) -> list[str]:
    """Return a sentence when the main context cannot have our stream block."""
    instead = (
        f"set hosts.{host.name}.front to external with external.kind nginx-stream, and the deploy prints the "
        "lines for a stream block of your own"
    )
    top = parse_dump(neighbours.dump(facts))
    found = [
        f"nginx on {host.name} has a stream block already ({block.where}), and takes one only: {instead}."
        for block in top
        if block.name == "stream" and block.file != neighbours.stream_file(facts)
    ]
    included = {join("/etc/nginx", inner.args[0]) for inner in top if inner.name == "include" and inner.args}
    modules = distributions.of(facts).family.nginx.modules
    if modules not in included:
        found.append(
            f"nginx.conf on {host.name} does not include {modules}, where our stream block "
            f"would be: add that line to its main context; or {instead}."
        )
    return found


def _taken(host: Host, facts: Facts) -> list[str]:
    """Return a sentence for each other site on our https port, and one for too many behind it."""
    port, behind = host.ports.https, _behind(facts)
    found, theirs = [], ", ".join(listen.where for listen in places.beside(facts, port))
    if theirs:
        # Only by a name can they share it in one web server.
        shared = f" Or set hosts.{host.name}.front to nginx, which shares the port as it is."
        found.append(
            f"nginx on {host.name} serves other sites on port {port} ({theirs}), where our stream has to "
            f"listen: write there instead listen {LOOPBACK}:444 ssl proxy_protocol; set_real_ip_from "
            f"{LOOPBACK}; real_ip_header proxy_protocol; without a reload of nginx, then deploy again. Our "
            f"stream hands every name but {host.domain} on to them.{'' if host.is_address else shared}"
        )
    if len(behind) > 1:
        found.append(
            f"Other sites in nginx on {host.name} expect the PROXY protocol at {' and '.join(behind)}: our "
            "stream hands every other name on to one place, so let them listen at the same one."
        )
    return found


def _behind(facts: Facts) -> list[str]:
    """Return address:port of other sites that expect TLS with PROXY headers on loopback."""
    servers = [server for server in neighbours.others(facts) if not server.stream]
    listens = [listen for server in servers for listen in server.listens if _is_behind(listen)]
    return sorted({f"{places.canonical(listen.address)}:{listen.port}" for listen in listens})


def _is_behind(listen: Listen) -> bool:
    return places.canonical(listen.address) == LOOPBACK and {"ssl", "proxy_protocol"} <= set(listen.options)
