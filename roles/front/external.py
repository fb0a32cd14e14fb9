"""A front that the operator keeps. We change none of its files, and write a fragment for it.

The fragment of each kind is a template, `front-<kind>.conf.j2`.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from engine.facts import Ask, Facts, Listener
from engine.render import render
from engine.resource import Absent, Directory, File, Resource
from inventory.choices import FRONTS, front_of, source_of
from inventory.model import Host
from roles import paths
from roles.contract import Challenge, Issued, ReloadTest, after, nothing
from roles.wiring import LOOPBACK, Use, Wiring

_PROGRAM = FRONTS["external"].program

ASK = Ask(files=(f"{paths.FRONT}/*.conf",))
ASK_ABSENT = Ask()
RELOAD: tuple[str, ...] = ()
TEST: ReloadTest | None = None

# The front has the https port, and we touch nothing of it. The proof says whether it has our lines.
https_resources = test_units = absent_test_units = nothing
refusals = absence_refusals = nothing
open_ports = other_sites = nothing
callers = nothing  # as whom it runs is not known


def fragment(host: Host) -> File:
    """Return the lines for the configuration of the operator's front, as the file beside it."""
    external = host.external
    assert external is not None  # noqa: S101 - the site's rules refuse it
    text = render(
        f"front-{external.kind}.conf.j2",
        host=host,
        by_address=host.is_address,
        terminates_tls=front_of(host).terminates_tls,
        challenge=host.ports.challenge if source_of(host).is_acme else None,
        listens=(str(host.ports.https), f"[::]:{host.ports.https}"),
        default=f"{LOOPBACK}:444",
    )
    return File(path=f"{paths.FRONT}/{external.kind}.conf", content=text)


def challenge(host: Host, facts: Facts) -> Challenge:
    """Return how challenges are answered: by certbot on loopback, where the front hands them on."""
    place = ("--http-01-address", LOOPBACK, "--http-01-port", str(host.ports.challenge))
    return Challenge(("--standalone", *place))


def http_resources(host: Host, facts: Facts, certificate: Issued) -> list[Resource]:
    """Return the fragment, in place of one for another kind of front."""
    file = fragment(host)
    return [Directory(path=paths.FRONT), file, *(Absent(path=path) for path in _there(facts, file.path))]


def _there(facts: Facts, kept: str = "") -> list[str]:
    folder = PurePosixPath(paths.FRONT)
    return sorted(path for path in facts.files if PurePosixPath(path).parent == folder and path != kept)


def replaced(wiring: Wiring, facts: Facts) -> list[Resource]:
    """Return the removal of the fragments. The lines in the front itself are the operator's."""
    return [Absent(path=paths.FRONT)] if _there(facts) else []


def absent(facts: Facts, *, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of the fragments, after `needs`."""
    return after(needs, [Absent(path=paths.FRONT)])


def warnings(host: Host, facts: Facts) -> list[str]:
    """Return the fragment while the host has another one or none, so that a deploy prints it."""
    file = fragment(host)
    text, there = file.content, facts.files.get(file.path)
    assert isinstance(text, bytes)  # noqa: S101 - as rendered
    if there is not None and there.content == text.decode():
        return []
    return [
        f"put these lines into the configuration of your front on {host.name} and reload it; they will be in "
        f"{file.path} as well:\n{text.decode()}"
    ]


def shares(listener: Listener, use: Use, facts: Facts) -> bool:
    """Whether the port is the front's: its program may be any."""
    return use.program == _PROGRAM
