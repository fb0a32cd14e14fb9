"""nginx itself and port 80: certificate challenges and the captive-portal check.

Other programs' servers stay as they are.
"""

from __future__ import annotations

from engine.facts import Facts, FileFact
from engine.render import render
from engine.resource import Absent, Command, Directory, File, Http, Package, Resource, Service
from inventory.model import Host
from roles import distributions, paths
from roles.contract import Challenge, ReloadTest
from roles.front.nginx import clashes, neighbours, overrides, places

UNIT = "nginx.service"
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
TEST: ReloadTest | None = ReloadTest(argv=("systemctl", "start", _TEST_UNIT), words=(*_JOURNAL, _TEST_UNIT))


def challenge(host: Host) -> Challenge:
    """Return how challenges are answered: from a folder that nginx serves on the http port."""
    return Challenge(("--webroot", "--webroot-path", paths.WEBROOT), needs=(f"file:{_TEST_FILE}", HTTP_READY))


def test_units() -> list[Resource]:
    """Return the unit that `TEST` starts."""
    return [File(path=_TEST_FILE, content=render("nginx-test.service.j2"))]


def absent_test_units() -> list[Resource]:
    """Return the removal of that unit."""
    return [Absent(path=_TEST_FILE)]


def http_resources(host: Host, facts: Facts) -> list[Resource]:
    """Return nginx with our server of the http port."""
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
        webroot=paths.WEBROOT,
    )
    server = File(path=http, content=content, needs=("package:nginx",))
    files: list[Resource] = [*_main(facts), *_placeholder(facts), server]
    fixed, streams = _fixed(facts), distributions.nginx_stream(facts)
    ready = Http(
        url=f"http://{host.domain}:{host.ports.http}{_READY}",
        connect=reached_at(facts, host.ports.http),
    )
    return [
        *streams,
        Package(package="nginx", needs=tuple(stream.id for stream in streams)),
        *fixed,
        Directory(path=paths.WEBROOT),
        Directory(path=f"{paths.WEBROOT}/.well-known"),
        Directory(path=f"{paths.WEBROOT}{_CHALLENGES}"),
        File(path=f"{paths.WEBROOT}{_READY}", content=b"ready\n"),
        *files,
        Service(
            unit=UNIT,
            phase="http",
            reload_on=tuple(file.id for file in files),
            before=("nginx", "-t"),
            listens=places.sockets(host, facts, host.ports.http, neighbours.HTTP_NAME),
            healthy=(ready,),
            watch=neighbours.watches(facts),
            needs=("package:nginx", f"file:{paths.WEBROOT}{_READY}", *(command.id for command in fixed)),
        ),
    ]


def taken_out(facts: Facts) -> bool:
    """Whether our https server has lost its certificate, and breaks all of nginx.

    It is moved aside until there is a new certificate.
    """
    return (
        f"{neighbours.folder(facts)}/{neighbours.HTTPS_NAME}" in facts.files
        and clashes.is_by_us(facts)
    )


def _fixed(facts: Facts) -> list[Command]:
    if not taken_out(facts):
        return []
    https = f"{neighbours.folder(facts)}/{neighbours.HTTPS_NAME}"
    argv, gone = ("mv", https, ASIDE), ("test", "!", "-e", https)
    needs = ("package:nginx", f"directory:{paths.ETC}")
    return [Command(title="https server taken out", argv=argv, unless=gone, needs=needs)]


def reached_at(facts: Facts, port: int) -> str:
    """Return where this host reaches its own nginx: on loopback, whatever others listen on."""
    return f"{places.LOOPBACK}:{port}"


def _main(facts: Facts) -> list[Resource]:
    """Return nginx.conf with room for many clients.

    It is written when nginx is new, when it is ours already, or when it is the package's and nginx
    serves no other site.
    """
    now = facts.files.get(neighbours.MAIN)
    fresh = not neighbours.nginx_was_there(facts)
    unused = neighbours.is_as_packaged(facts, neighbours.MAIN) and not neighbours.others(facts)
    if fresh or (now is not None and is_ours(now)) or (neighbours.dump(facts) and unused):
        family = distributions.of(facts).family
        content = render("nginx.conf.j2", system=family.system, nginx=family.nginx)
        return [File(path=neighbours.MAIN, content=content, needs=("package:nginx",))]
    return []


def is_ours(file: FileFact) -> bool:
    """Whether derpfleet has written this file."""
    return _OURS in (file.content or "")


def _placeholder(facts: Facts) -> list[Resource]:
    """Return the removal of the welcome page, which would answer requests by address.

    A default site that another program put there stays.
    """
    if not distributions.of(facts).family.nginx.welcome:
        return []
    if neighbours.STOCK_LINK not in facts.files or neighbours.is_placeholder(facts):
        return [Absent(path=neighbours.STOCK_LINK)]
    return []
