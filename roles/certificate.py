"""The relay's certificate: from an ACME server through certbot, brought along, or made on the host. And its renewal."""

from __future__ import annotations

import json
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from zlib import crc32

from artefacts.programs import PYTHON_FLOOR
from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.render import render
from engine.resource import Absent, Command, Directory, File, Package, Resource, Service, Symlink, Tree
from inventory.choices import flavour_of, source_of
from inventory.model import Host, Site
from roles import nginx, paths
from roles.wiring import wire

_PROGRAM = Path(__file__).parent.parent / "files" / "certificate.py"
_ACME_CA = f"{paths.ETC}/acme-ca.pem"
_OBTAINED = "command:certificate"
_COPIED = "command:relay's copy of the certificate"
_WRITABLE = ("/etc/letsencrypt", "/var/lib/letsencrypt", "/var/log/letsencrypt", paths.WEBROOT, paths.RELAY_CERTS)
_TIMER = "derpfleet-certificate.timer"
_SERVICE = "derpfleet-certificate.service"
_CRON = "/etc/cron.d/derpfleet-certificate"
# `nginx -t` opens logs, keys and the pid file of everybody's sites: in a unit of its own, as the renewal's is shut in.
_NGINX_TEST = f"{paths.SYSTEMD}/derpfleet-nginx-test.service"
_JOURNAL = ("journalctl", "--identifier", "nginx", "--lines", "3", "--since", "-1min", "--output", "cat", "--no-pager", "--unit")

ASK = Ask(files=(f"{paths.CERTBOT}/*",))


def files(host: Host) -> tuple[str, str]:
    """Where chain and key lie on the host."""
    folder = "/etc/letsencrypt/live" if source_of(host).is_acme else f"{paths.ETC}/certificates"
    return f"{folder}/{host.domain}/fullchain.pem", f"{folder}/{host.domain}/privkey.pem"


def ready(host: Host) -> tuple[str, ...]:
    """The ids that have put chain and key there."""
    if source_of(host).needs_files:
        return tuple(f"file:{path}" for path in files(host))
    return (_OBTAINED,)


def for_relay(host: Host, facts: Facts) -> tuple[str, ...]:
    """The ids that a relay needs before it can listen where nothing stands in front of it: its certificate, and nginx gone."""
    if not wire(host).relay_has_tls:
        return ()
    return (_COPIED, nginx.GONE) if nginx.leave(host, facts) else (_COPIED,)


def resources(host: Host, site: Site, facts: Facts, ship: Shipment) -> list[Resource]:
    found = [*_program(host, facts), *_SOURCES[host.certificate.source](host, site, facts, ship)]
    if wire(host).relay_has_tls:
        program = paths.CERTIFICATE_PROGRAM
        needs = (*ready(host), f"file:{paths.CERTIFICATE_CONFIG}", f"file:{program}", f"directory:{paths.RELAY_CERTS}")
        found.append(Command(title=_COPIED.removeprefix("command:"), argv=(program, "copy"), unless=(program, "copied"), needs=needs))
    return found


@cache
def _program_text() -> bytes:
    return _PROGRAM.read_bytes().split(b"\n", 1)[1]


def _program(host: Host, facts: Facts) -> list[Resource]:
    content = b"#!%s -I\n%s" % (facts.python_executable.encode(), _program_text())
    config = json.dumps(_config(host, facts), indent=2, sort_keys=True).encode() + b"\n"
    return [
        File(path=paths.CERTIFICATE_PROGRAM, content=content, mode="0755"),
        File(path=paths.CERTIFICATE_CONFIG, content=config),
        File(path=_NGINX_TEST, content=render("nginx-test.service.j2")) if not wire(host).relay_has_tls else Absent(path=_NGINX_TEST),
    ]


def _config(host: Host, facts: Facts) -> dict[str, object]:
    fullchain, key = files(host)
    wiring = wire(host)
    config: dict[str, object] = {
        "domain": host.domain,
        "fullchain": fullchain,
        "key": key,
        "https_port": host.ports.https,
        "patience_s": 15,
        "copies": {"directory": paths.RELAY_CERTS, "group": paths.USER} if wiring.relay_has_tls else None,
        "test": _test(host),
        "reload": list(_reload(host)),
        "withdrawal": _withdrawal(host) if wiring.relay_has_tls else None,  # nginx goes on serving the certificate
        "acme": None,
    }
    if source_of(host).is_acme:
        config["acme"] = {
            "server": server(host),
            "contact": host.certificate.contact,
            "ca": _ACME_CA if host.certificate.ca else None,
            "certbot": [facts.python_executable, "-I", f"{paths.CERTBOT}/current"] if _is_shipped(host) else ["certbot"],
            "authenticator": ["--webroot", "--webroot-path", paths.WEBROOT]
            if wiring.http_by == "front"
            else ["--standalone", "--http-01-port", str(host.ports.http)],
            "hook": paths.CERTIFICATE_PROGRAM,
        }
    return config


def _test(host: Host) -> dict[str, object] | None:
    """What asks whether a reload would go well, and where the words are when it would not."""
    unit = _NGINX_TEST.rpartition("/")[2]
    return {"argv": ["systemctl", "start", unit], "words": [*_JOURNAL, unit]} if not wire(host).relay_has_tls else None


def _reload(host: Host) -> tuple[str, ...]:
    """What makes the new certificate be served. Only derper has to be restarted for it; nginx and our relay keep their clients."""
    if not wire(host).relay_has_tls:
        return ("systemctl", "try-reload-or-restart", nginx.UNIT)
    if not flavour_of(host).in_container:
        return ("systemctl", "try-reload-or-restart", paths.SERVICE)
    return ("docker", "restart", paths.CONTAINER)


def _withdrawal(host: Host) -> dict[str, Any]:
    """How to ask whether the relay was withdrawn (`roles.relay.stopped`), and what is said then."""
    if not flavour_of(host).in_container:
        return {"argv": ["systemctl", "is-enabled", paths.SERVICE], "says": "disabled"}
    return {"argv": ["docker", "container", "ls", "--all", "--quiet", "--filter", f"name=^{paths.CONTAINER}$"], "says": ""}


def ask_withdrawn(host: Host) -> Ask:
    """What `is_withdrawn` needs."""
    return Ask(commands={"withdrawn": tuple(_withdrawal(host)["argv"])})


def is_withdrawn(host: Host, facts: Facts) -> bool:
    """Whether the relay was taken out of service, which is another thing than being down."""
    said = facts.commands.get("withdrawn")
    return said is not None and (said.stdout + said.stderr).strip() == _withdrawal(host)["says"]


def server(host: Host) -> str:
    """The ACME directory's URL."""
    return source_of(host).directory or host.certificate.server or ""


def _is_shipped(host: Host) -> bool:
    return host.certificate.certbot == "shipped"


def _acme(host: Host, site: Site, facts: Facts, ship: Shipment) -> list[Resource]:
    found: list[Resource] = _certbot(facts, ship) if _is_shipped(host) else [Package(package="certbot")]
    needs = [resource.id for resource in found if isinstance(resource, Symlink | Package)]
    if host.certificate.ca:
        found.append(File(path=_ACME_CA, content=Path(site.path).parent / Path(host.certificate.ca).expanduser()))
        needs.append(found[-1].id)
    needs += [f"file:{paths.CERTIFICATE_PROGRAM}", f"file:{paths.CERTIFICATE_CONFIG}", "package:openssl"]
    if wire(host).http_by == "front":
        needs += [f"file:{_NGINX_TEST}", nginx.HTTP_READY]
    elif nginx.leave(host, facts):
        needs.append(nginx.GONE)
    obtain = Command(
        title=_OBTAINED.removeprefix("command:"),
        argv=(paths.CERTIFICATE_PROGRAM, "obtain"),
        unless=(paths.CERTIFICATE_PROGRAM, "valid"),
        timeout_s=300,
        needs=tuple(needs),
    )
    return [*found, obtain, *_renewal(host)]


def _certbot(facts: Facts, ship: Shipment) -> list[Resource]:
    release = ship.certbot_release
    assert release is not None  # noqa: S101 - make_shipment builds it for a shipped certbot
    tree = Tree(path=f"{paths.CERTBOT}/{release.id}", archive=release.path)
    link = Symlink(path=f"{paths.CERTBOT}/current", target=release.id, needs=(tree.id,))
    kept = {tree.path, link.path}
    old = [Absent(path=path, needs=(link.id,)) for path in sorted(facts.files) if path.startswith(f"{paths.CERTBOT}/") and path not in kept]
    return [Directory(path=paths.CERTBOT), tree, link, *old]


def _renewal(host: Host) -> list[Resource]:
    """A systemd timer, or a cron line if asked; never both."""
    timer, service = f"{paths.SYSTEMD}/{_TIMER}", f"{paths.SYSTEMD}/{_SERVICE}"
    program = paths.CERTIFICATE_PROGRAM
    if host.certificate.renewal == "cron":
        minute = crc32(host.name.encode()) % 60
        return [
            Package(package="cron"),
            File(path=_CRON, content=render("certificate.cron.j2", host=host, program=program, minute=minute)),
            Service(unit=_TIMER, enabled=False, running=False),
            Absent(path=timer),
            Absent(path=service),
        ]
    return [
        Absent(path=_CRON),
        File(path=service, content=render("certificate.service.j2", host=host, program=program, writable=_WRITABLE)),
        File(path=timer, content=render("certificate.timer.j2", host=host)),
        Service(unit=_TIMER, restart_on=(f"file:{timer}",), needs=(f"file:{service}",)),
    ]


def _manual(host: Host, site: Site, facts: Facts, ship: Shipment) -> list[Resource]:
    fullchain, key = files(host)
    chain, reference = host.certificate.fullchain, host.certificate.key
    assert chain and reference  # noqa: S101 - inventory.rules refuses a manual certificate without them
    return [
        *_own_folder(host),
        File(path=fullchain, content=Path(site.path).parent / Path(chain).expanduser()),
        File(path=key, content=ship.secrets[reference], mode="0600", secret=True),
        *_no_renewal(),
    ]


def _self_signed(host: Host, site: Site, facts: Facts, ship: Shipment) -> list[Resource]:
    """One certificate for ten years, made on the host: clients know it by its fingerprint, so it must not change."""
    fullchain, key = files(host)
    try:
        kind = "IP" if ip_address(host.domain) else ""
    except ValueError:
        kind = "DNS"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]
    # A common name has 64 characters at most; what clients look at is the alternative name.
    argv += ["-subj", f"/CN={host.domain[:64]}", "-addext", f"subjectAltName={kind}:{host.domain}", "-keyout", key, "-out", fullchain]
    valid = ("openssl", "x509", "-noout", "-checkend", str(30 * 86400), "-in", fullchain)
    folders = _own_folder(host)
    needs = (folders[-1].id, "package:openssl")
    return [*folders, Command(title=_OBTAINED.removeprefix("command:"), argv=tuple(argv), unless=valid, needs=needs), *_no_renewal()]


def _own_folder(host: Host) -> list[Resource]:
    folder = files(host)[0].rpartition("/")[0]
    return [Directory(path=f"{paths.ETC}/certificates", mode="0700"), Directory(path=folder, mode="0700")]


def _no_renewal() -> list[Resource]:
    return [
        Absent(path=_CRON),
        Service(unit=_TIMER, enabled=False, running=False),
        Absent(path=f"{paths.SYSTEMD}/{_TIMER}"),
        Absent(path=f"{paths.SYSTEMD}/{_SERVICE}"),
    ]


_SOURCES = {"letsencrypt": _acme, "letsencrypt-staging": _acme, "acme": _acme, "manual": _manual, "self-signed": _self_signed}


def renewal(host: Host, facts: Facts, *, force: bool) -> list[Resource]:
    """What `invoke renew` runs: an order when one is due, or with `force` in any case, and the proof that its result is served."""
    program = paths.CERTIFICATE_PROGRAM
    fresh = (program, "younger", str(facts.now)) if force else (program, "valid")
    argv = (program, "renew", "--force") if force else (program, "renew")
    renew = Command(title="renewal", argv=argv, unless=fresh, timeout_s=400, role="certificate")
    served = Command(
        title="served certificate", argv=(program, "deploy"), unless=(program, "served"), needs=(renew.id,), role="certificate"
    )
    return [renew, served]


def refusals(host: Host, site: Site, facts: Facts) -> list[str]:
    if source_of(host).is_acme and _is_shipped(host) and facts.python[:2] < PYTHON_FLOOR:
        return [
            f"{host.name} has Python {'.'.join(map(str, facts.python))}, and the certbot that is shipped needs "
            f"{'.'.join(map(str, PYTHON_FLOOR))}: set hosts.{host.name}.certificate.certbot to distribution."
        ]
    return []
