"""nginx itself and port 80: certificate challenges and the captive-portal check.

Other programs' servers stay as they are.
"""

from __future__ import annotations

from engine.facts import Facts, FileFact
from engine.health import Http
from engine.render import render
from engine.resource import Absent, Command, Directory, File, Package, Resource, Service
from inventory.choices import front_of
from inventory.model import Host
from roles import distributions, paths
from roles.contract import Caller, Challenge, Issued, ReloadTest
from roles.front.nginx import clashes, neighbours, overrides, places
from roles.wiring import LOOPBACK

UNIT = "nginx.service"
WEBROOT = "/var/www/derpfleet"
HTTP_READY = f"service:{UNIT}/http"
_CHALLENGES = "/.well-known/acme-challenge"
_READY = f"{_CHALLENGES}/derpfleet"
ASIDE = f"{paths.ETC}/{neighbours.HTTPS_NAME}"
_OURS = "Written by derpfleet"

# `nginx -t` opens the logs, keys and pid file of all sites. The renewal's unit may not, so this is
# another unit.
_TEST_UNIT = "derpfleet-nginx-test.service"
_TEST_FILE = f"{paths.SYSTEMD}/{_TEST_UNIT}"
_JOURNAL = (
    *("journalctl", "--identifier", "nginx", "--lines", "3", "--since", "-1min"),
    *("--output", "cat", "--no-pager", "--unit"),
)

ASK = neighbours.ASK
RELOAD: tuple[str, ...] = ("systemctl", "try-reload-or-restart", UNIT)
TEST: ReloadTest | None = ReloadTest(
    program="nginx",
    by_hand="nginx -t",
    argv=("systemctl", "start", _TEST_UNIT),
    words=(*_JOURNAL, _TEST_UNIT),
    mark="[emerg]",
)


def challenge(host: Host, facts: Facts) -> Challenge:
    """Return how challenges are answered: from a folder that nginx serves on the http port."""
    ready = f"file:{WEBROOT}{_READY}" if serves_on(host, facts) else HTTP_READY
    return Challenge(
        ("--webroot", "--webroot-path", WEBROOT),
        needs=(f"file:{_TEST_FILE}", ready),
        units=(UNIT,),
        writes=(WEBROOT,),
    )


def test_units() -> list[Resource]:
    """Return the unit that `TEST` starts."""
    return [File(path=_TEST_FILE, content=render("nginx-test.service.j2"))]


def absent_test_units() -> list[Resource]:
    """Return the removal of that unit."""
    return [Absent(path=_TEST_FILE)]


def http_resources(host: Host, facts: Facts, certificate: Issued) -> list[Resource]:
    """Return nginx with our server of the http port, without a stream of before."""
    return port_80(host, facts, certificate, former=neighbours.stream_file(facts))


def port_80(
    host: Host, facts: Facts, certificate: Issued, *, former: str, beside: tuple[File, ...] = ()
) -> list[Resource]:
    """Return nginx with our server of the http port.

    `former`: the file of our other server that is taken away. `beside`: files that nginx takes with
    the same reload.
    """
    http = f"{neighbours.folder(facts)}/{neighbours.HTTP_NAME}"
    addresses, instead = neighbours.by_address(host, facts)
    content = render(
        "nginx-http.conf.j2",
        host=host,
        listens=places.listens(host, facts, host.ports.http, neighbours.HTTP_NAME, tls=False),
        names=(host.domain, *addresses),
        instead=instead,
        zones=overrides.zones(facts),
        instead_of_http=overrides.lines(facts),
        webroot=WEBROOT,
        passes_tls_on=front_of(host).passes_tls_on,
    )
    server = File(path=http, content=content, needs=("package:nginx",))
    gone = [Absent(path=former)] if former in facts.files else []
    files: list[Resource] = [*_main(facts), *_placeholder(facts), server, *gone, *beside]
    first = certificate.ready if serves_on(host, facts) else ()
    is_aside = is_moved(host, facts, certificate) and not former.endswith(neighbours.HTTPS_NAME)
    fixed = _moved_aside(facts, first) if is_aside else []
    before = [*distributions.nginx_stream(facts), *_no_welcome_page(facts)]
    ready = Http(
        url=f"http://{host.domain}:{host.ports.http}{_READY}",
        connect=f"{LOOPBACK}:{host.ports.http}",
    )
    return [
        *before,
        Package(package="nginx", needs=tuple(resource.id for resource in before)),
        *fixed,
        Directory(path=WEBROOT),
        Directory(path=f"{WEBROOT}/.well-known"),
        Directory(path=f"{WEBROOT}{_CHALLENGES}"),
        File(path=f"{WEBROOT}{_READY}", content=b"ready\n"),
        *files,
        Service(
            unit=UNIT,
            phase="http",
            reload_on=tuple(file.id for file in files),
            before=("nginx", "-t"),
            listens=places.sockets(host, facts, host.ports.http, neighbours.HTTP_NAME),
            healthy=(ready,),
            watch=neighbours.watches(facts),
            needs=(
                "package:nginx",
                f"file:{WEBROOT}{_READY}",
                *first,
                *(command.id for command in fixed),
            ),
        ),
    ]


def _is_broken(facts: Facts) -> bool:
    """Whether our https server breaks all of nginx, as without its certificate."""
    https = f"{neighbours.folder(facts)}/{neighbours.HTTPS_NAME}"
    return https in facts.files and clashes.is_by_us(facts)


def serves_on(host: Host, facts: Facts) -> bool:
    """Whether a running nginx still serves both ports with the configuration from before it broke.

    A reload without the https server would end that, so the certificate comes first. Without our
    http server nginx answers no challenge, whatever it serves for others.
    """
    http = f"{neighbours.folder(facts)}/{neighbours.HTTP_NAME}"
    there = [entry for entry in facts.listening if neighbours.is_nginx(entry)]
    ports = {entry.port for entry in there if entry.proto == "tcp"}
    return _is_broken(facts) and http in facts.files and {host.ports.http, host.ports.https} <= ports


def is_moved(host: Host, facts: Facts, certificate: Issued) -> bool:
    """Whether our broken https server is moved aside, so that nginx takes the http server.

    A running nginx keeps it when all that it lacks is the certificate.
    """
    files = (f'"{certificate.fullchain}"', f'"{certificate.key}"')
    is_lost = any(name in neighbours.breakage(facts) for name in files)
    return _is_broken(facts) and not (is_lost and serves_on(host, facts))


def _moved_aside(facts: Facts, first: tuple[str, ...]) -> list[Command]:
    https = f"{neighbours.folder(facts)}/{neighbours.HTTPS_NAME}"
    argv, gone = ("mv", https, ASIDE), ("test", "!", "-e", https)
    needs = ("package:nginx", f"directory:{paths.ETC}", *first)
    return [Command(title="https server taken out", argv=argv, unless=gone, needs=needs)]


def callers(facts: Facts) -> list[Caller]:
    """Return the user of nginx's workers, or nothing where nginx.conf names none."""
    is_written = bool(_main(facts))
    user = distributions.of(facts).family.nginx.user if is_written else neighbours.worker_user(facts)
    return [Caller(user, needs=("package:nginx",))] if user else []


def _main(facts: Facts) -> list[Resource]:
    """Return nginx.conf with room for many clients.

    It is written when nginx is new, when it is ours already, or when it is the package's and nginx
    serves no other site.
    """
    now = facts.files.get(neighbours.MAIN)
    fresh = neighbours.is_unused(facts)
    unused = neighbours.is_as_packaged(facts, neighbours.MAIN) and not neighbours.others(facts)
    if fresh or (now is not None and is_ours(now)) or (neighbours.dump(facts) and unused):
        family = distributions.of(facts).family
        content = render("nginx.conf.j2", system=family.system, nginx=family.nginx)
        return [File(path=neighbours.MAIN, content=content, needs=("package:nginx",))]
    return []


def is_ours(file: FileFact) -> bool:
    """Whether derpfleet has written this file."""
    return _OURS in (file.content or "")


def _no_welcome_page(facts: Facts) -> list[Command]:
    """Return an empty file in the place of Debian's welcome page, where the kernel has no IPv6.

    The package starts nginx when it is installed. With that page, which listens on [::]:80, the
    start would fail there, and so would the installation.
    """
    has_page = distributions.of(facts).family.nginx.welcome and neighbours.is_unused(facts)
    if neighbours.has_ipv6(facts) or not has_page:
        return []
    page = neighbours.STOCK_LINK
    argv = ("install", "-D", "--mode=0644", "/dev/null", page)
    is_empty = ("test", "-e", page, "-a", "!", "-s", page)
    return [Command(title="no welcome page of nginx", argv=argv, unless=is_empty)]


def _placeholder(facts: Facts) -> list[Resource]:
    """Return the removal of the welcome page, which would answer requests by address.

    A default site that another program put there stays.
    """
    if not distributions.of(facts).family.nginx.welcome:
        return []
    if neighbours.STOCK_LINK not in facts.files or neighbours.is_placeholder(facts):
        return [Absent(path=neighbours.STOCK_LINK)]
    return []
