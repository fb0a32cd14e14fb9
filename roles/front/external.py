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
from roles.contract import Caller, Challenge, Issued, ReloadTest, after
from roles.wiring import LOOPBACK, Use, Wiring

_PROGRAM = FRONTS["external"].program

ASK = Ask(files=(f"{paths.FRONT}/*.conf",))
ASK_ABSENT = Ask()
RELOAD: tuple[str, ...] = ()
TEST: ReloadTest | None = None


def fragment(host: Host) -> File:
    """Return the lines for the configuration of the operator's front, as the file beside it."""
    external = host.external
    assert external is not None  # noqa: S101 - the site's rules refuse it
    text = render(
        f"front-{external.kind}.conf.j2",
        host=host,
        by_address=host.domain.rpartition(".")[2].isdigit(),
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


def https_resources(host: Host, facts: Facts, certificate: Issued, relay: str) -> list[Resource]:
    """Return nothing: the front has the port."""
    return []


def replaced(wiring: Wiring, facts: Facts) -> list[Resource]:
    """Return the removal of the fragments. The lines in the front itself are the operator's."""
    return [Absent(path=paths.FRONT)] if _there(facts) else []


def absent(facts: Facts, *, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of the fragments, after `needs`."""
    return after(needs, [Absent(path=paths.FRONT)])


def test_units() -> list[Resource]:
    """Return nothing: there is no `TEST`."""
    return []


def absent_test_units() -> list[Resource]:
    """Return nothing: there is no `TEST`."""
    return []


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return nothing: the proof says whether the front has the lines."""
    return []


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


def absence_refusals(host: Host, facts: Facts) -> list[str]:
    """Return nothing: nothing of the front is touched."""
    return []


def shares(listener: Listener, use: Use, facts: Facts) -> bool:
    """Whether the port is the front's: its program may be any."""
    return use.program == _PROGRAM


def open_ports(facts: Facts) -> set[tuple[str, int]]:
    """Return nothing: the ports of the front that we know are the relay's."""
    return set()


def other_sites(facts: Facts) -> list[str]:
    """Return nothing: the front's sites are not known."""
    return []


def caller(facts: Facts) -> Caller | None:
    """Return None: the front's user is not known."""
    return None


def reached_at(facts: Facts, port: int) -> str:
    """Return loopback, one of all the addresses that the front is to listen on."""
    return f"{LOOPBACK}:{port}"
