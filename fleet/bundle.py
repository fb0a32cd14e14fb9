"""`invoke bundle`: take everything that a deploy would fetch to a controller without a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import roles
from artefacts import packages
from artefacts.bundle import Bundle, require_place, use_bundle, write_bundle
from artefacts.packaged import Packaged
from artefacts.supplies import supplies
from engine.crash import made_of_facts
from engine.facts import Facts
from engine.report import Report, closing
from engine.session import Session
from fleet.shared.bring_packages import named
from fleet.shared.errors import DeployRefused
from fleet.shared.fleet import Fleet
from fleet.shared.host_job import raise_refusals, shipment
from inventory.checkout import CACHE
from inventory.choices import packages_of, runner_of
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles import distributions
from roles import packages as ways


@dataclass(frozen=True)
class _Needs:
    """The facts of a host, the files of the cache that it needs, and the packages among them."""

    facts: Facts
    files: set[Path]
    brought: list[Packaged]


def bundle(fleet: Fleet, hosts: Sequence[Host], *, out: str, use: str, sha256: str) -> int:
    """Make a bundle for the hosts, or use one. Returns the exit code.

    Raises DerpfleetError unless exactly one of both files is given, and BundleError.
    """
    if bool(out) == bool(use):
        step = "invoke bundle --out FILE makes one, invoke bundle --use FILE takes what is in it"
        why = "exactly one of --out and --use is needed"
        raise DerpfleetError("a bundle is either made or used", why=why, next=step)
    return _use(fleet, hosts, Path(use), sha256) if use else _make(fleet, hosts, Path(out))


def _make(fleet: Fleet, hosts: Sequence[Host], out: Path) -> int:
    """Ask the hosts what they are, and write what they need to `out`. Returns the exit code.

    Nothing is written when a host cannot be asked.
    """
    require_place(out)
    gathered: dict[str, _Needs] = {}
    failed: list[tuple[str, int]] = []

    def one(host: Host) -> None:
        try:
            gathered[host.name] = _needs(fleet, host)
        except DerpfleetError as error:
            error.host = error.host or host.name
            fleet.report.failure(error)
            failed.append((host.name, error.exit_code))
        finally:
            fleet.report.doing(host.name, "")

    fleet.parallel.each(hosts, one)
    closing(fleet.report, [name for name, _ in failed], len(hosts))
    if failed:
        return max(code for _, code in failed)
    for host in hosts:
        _note_images(fleet.report, host)
    words = {host.name: _system(gathered[host.name].facts) for host in hosts}
    files = {path for needs in gathered.values() for path in needs.files}
    files |= _indexes(gathered.values())
    _show(fleet.report, out, write_bundle(out, cache=CACHE, files=files, hosts=words))
    return 0


def _use(fleet: Fleet, hosts: Sequence[Host], path: Path, expected: str) -> int:
    """Check the bundle and put its files where a deploy looks for them. Returns the exit code."""
    bundle = use_bundle(path, cache=CACHE, expected=expected)
    _show(fleet.report, path, bundle)
    for host in hosts:
        if host.name not in bundle.hosts:
            words = (
                "the bundle was not made for this host; it will do if one of its hosts has the same release, "
                f"architecture and settings; else: invoke bundle --out {path.name} --host {host.name}"
            )
            fleet.report.warning(host.name, words)
    return 0


def _needs(fleet: Fleet, host: Host) -> _Needs:
    """Return the needs of a host. What is missing is fetched. Raises DerpfleetError."""
    progress = partial(fleet.report.doing, host.name)
    with (
        fleet.session_for_reading(fleet.login(host), roles.ask(host, fleet.site)) as session,
        made_of_facts(host.name),
    ):
        if reasons := distributions.refusals(host.name, session.facts):
            raise DeployRefused("its system is not known", host=host.name, why="\n".join(reasons))
        facts = roles.for_programs(session.facts)
        files = supplies(host, facts, cache=CACHE, progress=progress)
        brought = _brought(fleet, host, session)
        return _Needs(facts, files | {*packages.fetched(brought, cache=CACHE, progress=progress)}, brought)


def _brought(fleet: Fleet, host: Host, session: Session) -> list[Packaged]:
    """Return all packages that the controller brings to hosts like this one, whatever they have."""
    if not packages_of(host).is_brought:
        return []
    raise_refusals(fleet, host, session.facts)
    facts = session.facts
    resources = roles.compile_host(host, fleet.site, facts, shipment(fleet, host, facts))
    return named(host, session, ways.names(resources), "all")


def _indexes(needs: Iterable[_Needs]) -> set[Path]:
    """Keep an index of the packages of each system, and return the files."""
    found: dict[str, tuple[Facts, dict[str, Packaged]]] = {}
    for one in needs:
        _, by_file = found.setdefault(_release(one.facts), (one.facts, {}))
        by_file.update({package.file: package for package in one.brought})
    return {
        packages.keep_index(facts, [*by_file.values()], cache=CACHE)
        for facts, by_file in found.values() if by_file
    }


def _release(facts: Facts) -> str:
    return f"{facts.os_id} {facts.os_version}, {facts.arch}"


def _system(facts: Facts) -> str:
    python, (libc, version) = ".".join(map(str, facts.python)), facts.libc
    return f"{_release(facts)}, Python {python}, {libc} {version}"


def _note_images(report: Report, host: Host) -> None:
    """Say where the image comes from: no bundle has it."""
    if runner_of(host).in_container:
        words = (
            f"docker.archive has to be copied as well: {host.docker.archive}" if host.docker.archive
            else "the host pulls docker.image itself; for a host without a way out, use docker.archive"
        )
        report.warning(host.name, words)


def _show(report: Report, path: Path, bundle: Bundle) -> None:
    report.emit(event="bundle", file=str(path), sha256=bundle.sha256, hosts=bundle.hosts, files=bundle.files)
    for host, system in bundle.hosts.items():
        report.line(host, "ok", system)
    report.say(f"{path}: {len(bundle.files)} files, sha256 {bundle.sha256}")
