"""Our relay: a release directory for the host's own Python."""

from __future__ import annotations

import posixpath

from artefacts.programs import PYTHON_FLOOR
from artefacts.shipment import Shipment
from engine.facts import Facts
from engine.resource import Absent, Command, Directory, File, Resource, Symlink
from inventory.model import Host, Site
from roles import paths, trees
from roles.relay import memory, releases
from roles.relay.contract import Admitting, Page, Start, health
from roles.wiring import LOOPBACK, Wiring

# Python's own libraries where it is a package's. A Python elsewhere may have them anywhere.
_LIBRARIES = ("-/usr/lib", "-/usr/lib64", "-/lib", "-/lib64", "-/usr/local/lib")

ASK = memory.ASK
PROCESSES: frozenset[str] = frozenset()
KEY_FIELD = "DERP_KEY"  # as relay/log.py names its fields


def start(host: Host, wiring: Wiring, facts: Facts, ship: Shipment, admitting: Admitting) -> Start:
    """Return the release and its command line.

    There is nothing in `ready`: the runner removes the former relay just before this one starts.
    """
    tree = releases.tree(ship)
    path = tree.path
    # The service cannot write there, and without compiled modules it takes twice as long to start.
    argv = (facts.python_executable, "-I", "-m", "compileall", "-q", path)
    compiled = Command(
        title=f"compiled {posixpath.basename(path)}",
        argv=argv,
        creates=f"{path}/relay/__pycache__",
        on_change=(tree.id,),
    )
    link = Symlink(path=paths.CURRENT, target=path, needs=(compiled.id,))
    probers = _prober_keys(admitting, ship)
    unused = () if probers else (Absent(path=paths.PROBER_KEYS),)
    return Start(
        installed=(Directory(path=paths.RELEASES), tree, compiled, link, *admitting.resources, *probers),
        artefact=link.id,
        healthy=health(host, wiring),
        outdated=(*trees.outdated(facts, paths.RELEASES, path), *unused),
        command=(facts.python_executable, "-I", paths.CURRENT),
        flags=(*_flags(host, wiring, admitting), *_limits(host, facts)),
        binds=_binds(host),
        executables=_executables(facts.python_executable),
        takes_sockets=True,
        reload_signal="HUP",
    )


def _prober_keys(admitting: Admitting, ship: Shipment) -> tuple[Resource, ...]:
    """Return the file of our proof's public keys where the relay does not admit everyone.

    Nobody else knows them. The relay reads the file again when it changes.
    """
    if not admitting.flags:
        return ()
    assert ship.prober_keys  # noqa: S101 - fleet gives them to every host
    content = "".join(f"{key}\n" for key in ship.prober_keys).encode()
    return (File(path=paths.PROBER_KEYS, content=content, mode="0640", group=paths.USER),)


def _flags(host: Host, wiring: Wiring, admitting: Admitting) -> tuple[tuple[str, ...], ...]:
    found: list[tuple[str, ...]] = [
        ("-c", paths.KEY),
        ("-hostname", host.domain),
        ("-stun-port", str(host.ports.stun)),
        ("-a", str(wiring.relay)),
        ("-http-port", str(wiring.relay_http_port)),
    ]
    if wiring.relay_is_hidden:
        found.append(("-trusted-proxies", ",".join(wiring.proxies)))
    if wiring.relay_reads_proxy_header:
        found.append(("-proxy-protocol",))
    if wiring.relay_has_tls:
        found += [("-certmode", "manual"), ("-certdir", paths.RELAY_CERTS)]
    found.append(("-front-check", wiring.reached_at))
    if admitting.flags:
        found += [*admitting.flags, ("-prober-keys", paths.PROBER_KEYS)]
    # The default is a file that an earlier derper on this host has left.
    found.append(("-mesh-psk-file=",))
    # Scanners look for the sentence of the default page.
    found.append(("-home", "blank"))
    return (*found, *_metrics_flags(host))


def _metrics_flags(host: Host) -> list[tuple[str, ...]]:
    if host.ports.metrics is None:
        return [("-metrics-listen", f"unix:{paths.METRICS}")]
    if not host.metrics.allow:
        return [("-metrics-listen", f"{LOOPBACK}:{host.ports.metrics}")]
    allowed = ",".join(map(str, host.metrics.allow))
    return [("-metrics-listen", f":{host.ports.metrics}"), ("-metrics-allow", allowed)]


def _binds(host: Host) -> tuple[str, ...]:
    """Return the socket that systemd does not hold: the one of the metrics, if it has a port."""
    if host.ports.metrics is None:
        return ()
    family = "" if host.metrics.allow else "ipv4:"
    return (f"{family}tcp:{host.ports.metrics}",)


def _limits(host: Host, facts: Facts) -> tuple[tuple[str, ...], ...]:
    """Return the limits of one address and of all memory.

    New clients are refused above half of the host's memory, before the unit's MemoryHigh= slows all
    of them.
    """
    found: tuple[tuple[str, ...], ...] = (
        ("-connections-per-address", str(host.relay.connections_per_address)),
    )
    ceiling = memory.share_mib(facts, 50)
    return found if ceiling is None else (*found, ("-memory-ceiling", str(ceiling)))


def _executables(python: str) -> tuple[str, ...]:
    if not python.startswith(("/usr/bin/", "/bin/", "/usr/local/bin/")):
        return ()
    return (python, *_LIBRARIES, paths.OPT)


def metrics(host: Host, wiring: Wiring) -> Page:
    """Return the page on the metrics' own socket or port."""
    return Page(scheme="http", at=str(host.ports.metrics or paths.METRICS), path="/metrics")


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of our proof's public keys."""
    return [Absent(path=paths.PROBER_KEYS, needs=needs)]


def refusals(host: Host, site: Site, facts: Facts) -> list[str]:
    """Return a sentence if the host's Python is too old."""
    if facts.python[:2] >= PYTHON_FLOOR:
        return []
    return [
        f"{host.name} has Python {'.'.join(map(str, facts.python))}, and our relay needs "
        f"{'.'.join(map(str, PYTHON_FLOOR))}: "
        f"set hosts.{host.name}.flavour to native or docker, or hosts.{host.name}.ssh.python to a newer one."
    ]
