"""Go's derper in a container, told what to do by the environment variables that the common derper images know."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Facts
from engine.resource import Container, Image, Resource
from inventory.choices import firewall_of
from inventory.model import Host, Site
from roles import docker, paths
from roles.admission import mesh_key_id, verify_url
from roles.contract import Question
from roles.relay.contract import Given, health
from roles.wiring import Wiring

_CERTS = "/app/certs"

ASK = docker.ASK
RUNNING = f"container:{paths.CONTAINER}"
RELOAD: tuple[str, ...] = ("docker", "restart", paths.CONTAINER)  # derper reads its certificate only once
WITHDRAWN = Question(("docker", "container", "ls", "--all", "--quiet", "--filter", f"name=^{paths.CONTAINER}$"), says="")


def ready_to_start(host: Host, ship: Shipment) -> tuple[str, ...]:
    """Return the image's id."""
    return (_image(host, ship).id,)


def resources(host: Host, site: Site, wiring: Wiring, facts: Facts, given: Given) -> list[Resource]:
    installed = docker.resources(host, facts)
    image = _image(host, given.ship)
    container = Container(
        container=paths.CONTAINER,
        image=image.ref,
        arguments=arguments(host, site, wiring),
        restart_on=(mesh_key_id(host, site),),
        healthy=(health(host, wiring),),
        needs=(given.key, image.id, *(resource.id for resource in given.former), *given.listens_after),
    )
    return [*installed, image, *given.former, container]


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the container, stopped. Images and Docker itself stay."""
    return [Container(container=paths.CONTAINER, running=False, needs=needs)]


def stopped() -> list[Resource]:
    """Return the container, stopped."""
    return absent()


def _image(host: Host, ship: Shipment) -> Image:
    needs = (f"service:{docker.UNIT}",)
    if host.docker.image:
        return Image(ref=host.docker.image, needs=needs)
    assert ship.image is not None  # noqa: S101 - make_shipment reads it where docker.archive is given
    return Image(ref=ship.image.ref, archive=ship.image.path, needs=needs)


def arguments(host: Host, site: Site, wiring: Wiring) -> tuple[str, ...]:
    """What `docker run` is given. Ports keep their numbers inside, so that the variables say what the site file says."""
    words = ["--restart", "always", "--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE", "--cap-add", "NET_BIND_SERVICE"]
    words += ["--security-opt", "no-new-privileges"]
    words += ["--log-driver", "json-file", "--log-opt", "max-size=10m", "--log-opt", "max-file=3"]
    for name, value in environment(host, site, wiring).items():
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


def environment(host: Host, site: Site, wiring: Wiring) -> dict[str, str]:
    """The variables of fredliang44/derper-docker, which others follow; one more for the flag that it lacks."""
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


def refusals(host: Host, site: Site, wiring: Wiring, facts: Facts) -> list[str]:
    """Return what keeps Docker from being used, and what derper would do unlike our relay."""
    found, url = docker.refusals(host, facts), verify_url(host, site)
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
