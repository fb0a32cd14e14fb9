"""Go's derper in a container, told what to do by the environment variables that the common derper images know."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Facts
from engine.resource import Absent, Container, Image, Resource, Service
from inventory.choices import firewall_of
from inventory.model import Host, Site
from roles import certificate, docker, paths, relay_python
from roles.admission import mesh_key_id, verify_url
from roles.wiring import Wiring, wire

_CERTS = "/app/certs"


def resources(host: Host, site: Site, facts: Facts, ship: Shipment, *, after: str) -> list[Resource]:
    installed = docker.resources(host, facts)
    image = _image(host, ship)
    former = [
        Service(unit=paths.SERVICE, enabled=False, running=False, needs=(image.id,)),
        Service(unit=paths.SOCKET, enabled=False, running=False, needs=(image.id,)),
        Absent(path=f"{paths.SYSTEMD}/{paths.SERVICE}", needs=(f"service:{paths.SERVICE}",)),
        Absent(path=f"{paths.SYSTEMD}/{paths.SOCKET}", needs=(f"service:{paths.SOCKET}",)),
        Absent(path=paths.CURRENT, needs=(f"service:{paths.SERVICE}",)),
        Absent(path=paths.RELEASES, needs=(f"service:{paths.SERVICE}",)),
    ]
    container = Container(
        container=paths.CONTAINER,
        image=image.ref,
        arguments=arguments(host, site),
        restart_on=(mesh_key_id(host, site),),
        healthy=(relay_python.health(host),),
        needs=(after, image.id, *(resource.id for resource in former), *certificate.for_relay(host, facts)),
    )
    return [*installed, image, *former, container]


def _image(host: Host, ship: Shipment) -> Image:
    needs = (f"service:{docker.UNIT}",)
    if host.docker.image:
        return Image(ref=host.docker.image, needs=needs)
    assert ship.image is not None  # noqa: S101 - make_shipment reads it where docker.archive is given
    return Image(ref=ship.image.ref, archive=ship.image.path, needs=needs)


def arguments(host: Host, site: Site) -> tuple[str, ...]:
    """What `docker run` is given. Ports keep their numbers inside, so that the variables say what the site file says."""
    wiring = wire(host)
    words = ["--restart", "always", "--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE", "--cap-add", "NET_BIND_SERVICE"]
    words += ["--security-opt", "no-new-privileges"]
    words += ["--log-driver", "json-file", "--log-opt", "max-size=10m", "--log-opt", "max-file=3"]
    for name, value in environment(host, site).items():
        words += ["--env", f"{name}={value}"]
    if wiring.relay_is_published:
        words += [word for published in _published(host, wiring) for word in ("--publish", published)]
    else:
        words += ["--network", "host"]
    words += ["--volume", f"{paths.STATE}:/var/lib/derper:ro"]
    if verify_url(host, site):  # derper looks for a mesh key there, whatever its image
        words += ["--volume", f"{paths.MESH_KEYS}:/home/derp/keys:ro"]
    # The host's trust store, so that a private CA that is trusted there counts when derper asks headscale.
    words += ["--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"]
    if wiring.relay_has_tls:
        words += ["--volume", f"{paths.RELAY_CERTS}:{_CERTS}:ro"]
    return tuple(words)


def environment(host: Host, site: Site) -> dict[str, str]:
    """The variables of fredliang44/derper-docker, which others follow; one more for the flag that it lacks."""
    wiring = wire(host)
    return {
        "DERP_DOMAIN": host.domain,
        "DERP_ADDR": f":{wiring.relay.port}",
        # Behind nginx derper speaks plain HTTP: it serves TLS on port 443 or with manual certificates only.
        "DERP_CERT_MODE": "manual" if wiring.relay_has_tls else "letsencrypt",
        "DERP_CERT_DIR": _CERTS,
        "DERP_HTTP_PORT": str(wiring.relay_http_port),
        "DERP_STUN": "true",
        "DERP_STUN_PORT": str(host.ports.stun),
        "DERP_VERIFY_CLIENTS": "false",
        "DERP_VERIFY_CLIENT_URL": verify_url(host, site),
        "DERP_VERIFY_CLIENT_URL_FAIL_OPEN": str(host.relay.verify_fail_open).lower(),
    }


def _published(host: Host, wiring: Wiring) -> list[str]:
    relay, stun = wiring.relay, host.ports.stun
    found = [f"{relay}:{relay.port}".removeprefix(":")]
    if wiring.http_by == "relay":
        found.append(f"{host.ports.http}:{host.ports.http}")
    return [*found, f"{stun}:{stun}/udp"]


def refusals(host: Host, site: Site) -> list[str]:
    found, url, wiring = [], verify_url(host, site), wire(host)
    if host.docker.image and url and not host.relay.verify_fail_open:
        found.append(
            f"A derper image from a registry cannot be told to refuse clients while {url} does not answer: derper's default admits them "
            f"then. Set hosts.{host.name}.relay.verify_fail_open to true if that will do, or ship our own image with docker.archive."
        )
    if not wiring.relay_is_published and wiring.relay_is_hidden and not firewall_of(host).closes:
        found.append(
            f"With IPv6, derper runs in the network of {host.name} itself and listens on port {host.ports.backend} for everybody, which "
            f"only the firewall closes: set hosts.{host.name}.firewall.mode to enforce, or leave out hosts.{host.name}.ipv6."
        )
    return found
