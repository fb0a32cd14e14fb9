"""nginx itself and port 80: certificate challenges and the captive-portal check. What others serve there stays as it is."""

from __future__ import annotations

from engine.facts import Facts
from engine.render import render
from engine.resource import Absent, Command, Directory, Exec, File, Http, Package, Resource, Service
from engine.scripts import script
from inventory.model import Host
from roles import paths, sites
from roles.contract import Challenge, ReloadTest
from roles.wiring import Wiring

UNIT = "nginx.service"
HTTP_READY = f"service:{UNIT}/http"
GONE = f"service:{UNIT}/gone"
_CHALLENGES = "/.well-known/acme-challenge"
_READY = f"{_CHALLENGES}/derpfleet"
ASIDE = f"{paths.ETC}/{sites.HTTPS_NAME}"
_OURS = "Written by derpfleet"

# `nginx -t` opens logs, keys and the pid file of everybody's sites: in a unit of its own, as the renewal's is shut in.
_TEST_UNIT = "derpfleet-nginx-test.service"
_TEST_FILE = f"{paths.SYSTEMD}/{_TEST_UNIT}"
_JOURNAL = ("journalctl", "--identifier", "nginx", "--lines", "3", "--since", "-1min", "--output", "cat", "--no-pager", "--unit")

ASK = sites.ASK
RELOAD: tuple[str, ...] = ("systemctl", "try-reload-or-restart", UNIT)
TEST: ReloadTest | None = ReloadTest(argv=("systemctl", "start", _TEST_UNIT), words=(*_JOURNAL, _TEST_UNIT))


def challenge(host: Host) -> Challenge:
    """Return how challenges are answered: from a folder that nginx serves on the http port."""
    return Challenge(("--webroot", "--webroot-path", paths.WEBROOT), needs=(f"file:{_TEST_FILE}", HTTP_READY))


def test_units() -> list[Resource]:
    """Return the unit that `TEST` starts."""
    return [File(path=_TEST_FILE, content=render("nginx-test.service.j2"))]


def absent_test_units() -> list[Resource]:
    """Return what takes that unit away."""
    return [Absent(path=_TEST_FILE)]


def http_resources(host: Host, facts: Facts) -> list[Resource]:
    http = f"{sites.folder(facts)}/{sites.HTTP_NAME}"
    addresses, instead = sites.by_address(host, facts)
    content = render(
        "nginx-http.conf.j2",
        host=host,
        listens=sites.listens(facts, host.ports.http, sites.HTTP_NAME, tls=False),
        names=(host.domain, *addresses),
        instead=instead,
        webroot=paths.WEBROOT,
    )
    files: list[Resource] = [*_main(facts), *_placeholder(facts), File(path=http, content=content, needs=("package:nginx",))]
    mended = _mended(facts)
    return [
        Package(package="nginx"),
        *mended,
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
            healthy=(Http(url=f"http://{host.domain}:{host.ports.http}{_READY}", connect=reached_at(facts, host.ports.http)),),
            watch=sites.watches(facts),
            needs=("package:nginx", f"file:{paths.WEBROOT}{_READY}", *(command.id for command in mended)),
        ),
    ]


def taken_out(facts: Facts) -> bool:
    """Whether our https server has lost its certificate: it breaks all of nginx then, and stands aside until there is a new one."""
    return f"{sites.folder(facts)}/{sites.HTTPS_NAME}" in facts.files and sites.is_broken_by_us(facts)


def _mended(facts: Facts) -> list[Command]:
    if not taken_out(facts):
        return []
    https = f"{sites.folder(facts)}/{sites.HTTPS_NAME}"
    argv, gone = ("mv", https, ASIDE), ("test", "!", "-e", https)
    return [Command(title="https server taken out", argv=argv, unless=gone, needs=("package:nginx", f"directory:{paths.ETC}"))]


def reached_at(facts: Facts, port: int) -> str:
    """Where this host reaches its own nginx: loopback, or the address that its servers are bound to."""
    beside = [listen for server in sites.others(facts) for listen in server.listens if listen.port == port]
    bound = [listen.address for listen in beside if listen.address not in ("*", "[::]")]
    return f"{bound[0] if bound and len(bound) == len(beside) else '127.0.0.1'}:{port}"


def _main(facts: Facts) -> list[Resource]:
    """nginx.conf with room for many clients, where it is the package's or ours and serves nobody else."""
    now = facts.files.get(sites.MAIN)
    fresh = not sites.nginx_was_there(facts)
    ours = now is not None and _OURS in (now.content or "")
    if fresh or ours or (sites.dump(facts) and sites.is_as_packaged(facts, sites.MAIN) and not sites.others(facts)):
        return [File(path=sites.MAIN, content=render("nginx.conf.j2"), needs=("package:nginx",))]
    return []


def _placeholder(facts: Facts) -> list[Resource]:
    """Debian's welcome page would answer what comes by address. A default site of somebody's own stays."""
    if sites.STOCK_LINK not in facts.files or sites.is_placeholder(facts):
        return [Absent(path=sites.STOCK_LINK)]
    return []


def absent(host: Host, wiring: Wiring, facts: Facts) -> list[Resource]:
    """Takes our servers out of nginx, and nginx off its ports when it serves nobody else."""
    files = [Absent(path=path) for path in sorted(facts.files) if path.endswith((sites.HTTP_NAME, sites.HTTPS_NAME))]
    if not files:
        return []
    if not sites.others(facts):
        return [*files, Service(unit=UNIT, phase="gone", enabled=False, running=False)]
    wanted = [use.port for use in wiring.uses if use.proto == "tcp" and use.public]
    return [
        *files,
        Service(
            unit=UNIT,
            phase="gone",
            reload_on=tuple(file.id for file in files),
            before=("nginx", "-t"),
            healthy=(Exec(argv=(facts.python_executable, "-I", "-c", script("free_ports"), *map(str, wanted))),),
            watch=sites.watches(facts),
        ),
    ]


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return what keeps our servers from being added."""
    if path := sites.foreign(facts):
        return [
            f"{path} on {host.name} is no package's, and the distribution's nginx would be installed over it: take it away, or set "
            f"hosts.{host.name}.front to none, with ports that it does not have."
        ]
    if found := absence_refusals(host, facts):
        return found
    if sites.dump(facts) and not sites.included(facts):
        return [
            f"nginx.conf on {host.name} includes neither of the folders that a site of ours could stand in: add to its http block the line "
            f"include {sites.FOLDERS[1]}/*.conf; or set hosts.{host.name}.front to none, with ports that nginx does not have."
        ]
    return _stream(host, facts)


def absence_refusals(host: Host, facts: Facts) -> list[str]:
    """Return what keeps our servers from being taken out: a configuration that cannot be read, or was broken before."""
    if problem := sites.unreadable(facts):
        return [
            f"nginx's configuration on {host.name} says what derpfleet cannot read, so nobody can tell whom else it serves: {problem}. "
            f"Write that place more simply, or set hosts.{host.name}.front to none, with ports that nginx does not have."
        ]
    if sites.breakage(facts) and not sites.is_broken_by_us(facts):
        return [
            f"nginx's configuration on {host.name} was broken before we came, and is left as it is: {sites.breakage(facts)}. "
            "Mend it until nginx -t is content."
        ]
    return []


def _stream(host: Host, facts: Facts) -> list[str]:
    wanted = {host.ports.https, host.ports.http}
    return [
        f"nginx on {host.name} hands port {listen.port} on as a stream ({server.file}): give that stream another port, or set "
        f"hosts.{host.name}.ports to others."
        for server in sites.others(facts)
        for listen in server.listens
        if server.stream and listen.port in wanted and "udp" not in listen.options
    ]
