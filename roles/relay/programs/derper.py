"""Go's derper: its own build with flags, or an image with the variables that these know."""

from __future__ import annotations

from typing import Literal

from artefacts.programs import DERPER
from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Absent, Directory, File, Image, Resource, Symlink
from inventory.admission import verify_url
from inventory.choices import firewall_of, front_of, runner_of
from inventory.model import Host, Site
from roles import distributions, docker, paths, trees
from roles.relay import releases
from roles.relay.contract import Admitting, Page, Start, health
from roles.wiring import Wiring

_CERTS = "/app/certs"

ASK = Ask()
PROCESSES = frozenset({"derper"})
KEY_FIELD = ""


def start(host: Host, wiring: Wiring, facts: Facts, ship: Shipment, admitting: Admitting) -> Start:
    """Return the image and its environment, or without a container the release and its flags.

    The former relay runs until an image is there. A release is shipped before all else.
    """
    made = _from_image if runner_of(host).in_container else _from_release
    return made(host, wiring, facts, ship, admitting)


def _from_release(
    host: Host, wiring: Wiring, facts: Facts, ship: Shipment, admitting: Admitting
) -> Start:
    tree, mesh_key = releases.tree(ship), _mesh_key(ship, admitting)
    link = Symlink(path=paths.CURRENT, target=tree.path, needs=(tree.id,))
    unused = () if mesh_key else (Absent(path=paths.MESH_KEYS),)
    return Start(
        installed=(Directory(path=paths.RELEASES), tree, link, *admitting.resources, *mesh_key),
        artefact=link.id,
        reads=tuple(resource.id for resource in mesh_key),
        healthy=health(host, wiring),
        outdated=(*trees.outdated(facts, paths.RELEASES, tree.path), *unused),
        command=(f"{paths.CURRENT}/{DERPER.program}",),
        flags=_flags(host, wiring, admitting),
        binds=tuple(f"{use.proto}:{use.port}" for use in wiring.uses if use.program == "relay"),
        executables=(paths.RELEASES,),
    )


def _flags(host: Host, wiring: Wiring, admitting: Admitting) -> tuple[tuple[str, ...], ...]:
    found: list[tuple[str, ...]] = [
        ("-c", paths.KEY),
        ("-hostname", host.domain),
        # STUN is answered on the address of this port. So it has to be every address of the host.
        ("-a", f":{wiring.relay.port}"),
        ("-http-port", str(wiring.relay_http_port)),
        ("-stun-port", str(host.ports.stun)),
        # Its default is a file that an earlier derper on this host may have left.
        ("-mesh-psk-file", paths.MESH_KEY) if admitting.flags else ("-mesh-psk-file=",),
        ("-home", "blank"),
    ]
    if wiring.relay_has_tls:
        found += [("-certmode", "manual"), ("-certdir", paths.RELAY_CERTS)]
    return (*found, *admitting.flags)


def _from_image(
    host: Host, wiring: Wiring, facts: Facts, ship: Shipment, admitting: Admitting
) -> Start:
    image, mesh_key = _image(host, ship), _mesh_key(ship, admitting)
    return Start(
        installed=(image, *mesh_key),
        artefact=image.id,
        ready=(image.id,),
        reads=tuple(resource.id for resource in mesh_key),
        healthy=health(host, wiring),
        outdated=() if mesh_key else (Absent(path=paths.MESH_KEYS),),
        image=image.ref,
        environment=_environment(host, wiring, admitting),
        mounts=_mounts(wiring, facts, admitting),
    )


def _image(host: Host, ship: Shipment) -> Image:
    needs = (f"service:{docker.UNIT}",)
    if host.docker.image:
        return Image(ref=host.docker.image, needs=needs)
    assert ship.image is not None  # noqa: S101 - make_shipment reads it from docker.archive
    return Image(ref=ship.image.ref, archive=ship.image.path, needs=needs)


def _mesh_key(ship: Shipment, admitting: Admitting) -> tuple[Resource, ...]:
    """Return the mesh key where the relay asks about every client.

    Our proof has no node key that anyone knows, and derper has no other way to admit it.
    """
    if not admitting.flags:
        return ()
    assert ship.mesh_key is not None  # noqa: S101 - fleet derives one for this program
    return (
        Directory(path=paths.MESH_KEYS, mode="0750", group=paths.USER),
        File(path=paths.MESH_KEY, content=ship.mesh_key, mode="0640", group=paths.USER, secret=True),
    )


def _environment(host: Host, wiring: Wiring, admitting: Admitting) -> dict[str, str]:
    """Return the variables of fredliang44/derper-docker, which other images know, too.

    Two more are for flags that it lacks; scanners look for the default home page. Ports have the
    same numbers inside the container, so that the variables have the site file's values.
    """
    return {
        "DERP_DOMAIN": host.domain,
        "DERP_ADDR": f":{wiring.relay.port}",
        # Behind nginx derper speaks plain HTTP: it serves TLS only on port 443, or with manual
        # certificates.
        "DERP_CERT_MODE": "manual" if wiring.relay_has_tls else "letsencrypt",
        "DERP_CERT_DIR": _CERTS,
        "DERP_HTTP_PORT": str(wiring.relay_http_port),
        "DERP_STUN": "true",
        "DERP_STUN_PORT": str(host.ports.stun),
        "DERP_HOME": "blank",
        "DERP_VERIFY_CLIENTS": "false",
        "DERP_VERIFY_CLIENT_URL": admitting.url,
        "DERP_VERIFY_CLIENT_URL_FAIL_OPEN": str(host.relay.verify_fail_open).lower(),
    }


def _mounts(wiring: Wiring, facts: Facts, admitting: Admitting) -> dict[str, str]:
    found = {paths.STATE: "/var/lib/derper"}
    if admitting.url:  # derper looks for a mesh key there, whatever its image
        found[paths.MESH_KEYS] = "/home/derp/keys"
    # With the host's trust store derper trusts the host's private CAs when it asks headscale.
    found |= distributions.of(facts).family.trust
    if wiring.relay_has_tls:
        found[paths.RELAY_CERTS] = _CERTS
    return found


def metrics(host: Host, wiring: Wiring) -> Page:
    """Return derper's debug page, served on its DERP port and only to its own loopback."""
    scheme: Literal["http", "https"] = "https" if wiring.relay_has_tls else "http"
    return Page(scheme=scheme, at=str(wiring.relay.port), path="/debug/varz")


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of the mesh key. Images are left to `roles.docker`, as Docker is."""
    return [Absent(path=paths.MESH_KEYS, needs=needs)]


def refusals(host: Host, site: Site, facts: Facts) -> list[str]:
    """Return the reasons against derper: as an image, or as a program of the host's own."""
    return _of_image(host, site) if runner_of(host).in_container else _of_release(host, facts)


def _of_release(host: Host, facts: Facts) -> list[str]:
    found = []
    if facts.arch not in DERPER.architectures:
        found.append(
            f"{host.name} is a machine of the kind {facts.arch}, and derper is built for "
            f"{' and '.join(DERPER.architectures)} only: set hosts.{host.name}.flavour to docker, with an "
            f"image for {facts.arch}, or to python."
        )
    if front_of(host).hides_relay and not firewall_of(host).closes:
        found.append(
            "derper answers STUN on the address of its other port, so it listens on port "
            f"{host.ports.backend} of {host.name} for everybody, which only the firewall closes: set "
            f"hosts.{host.name}.firewall.mode to auto, or hosts.{host.name}.front to none."
        )
    return found


def _of_image(host: Host, site: Site) -> list[str]:
    url = verify_url(host, site)
    if not host.docker.image or not url or host.relay.verify_fail_open:
        return []
    return [
        f"A derper image from a registry cannot be told to refuse clients while {url} does not answer: "
        f"derper's default admits them then. Set hosts.{host.name}.relay.verify_fail_open to true if that "
        "will do, or ship our own image with docker.archive."
    ]
