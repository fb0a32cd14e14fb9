"""`invoke init`: a first site file, of the example or of a map that is there already."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import inventory
from control.any_map import FoundMap, found_in
from control.site_of_map import MadeSite, site_of
from control.yaml_text import flow
from engine.report import Report
from fleet.shared import site_choice
from fleet.shared.errors import CannotWrite, WouldOverwrite
from inventory.derp_map import NoDerpMap
from inventory.errors import DerpfleetError

_MOST = 4 << 20  # bytes of a map or policy


class NothingToImport(DerpfleetError):
    """The file has no map, or none of its regions can be a host; nothing was written."""


def init(report: Report, path: Path | None, source: Path | None) -> None:
    """Write a site file to `path`, by default to the checkout's own place.

    `source`: a file with a map, whose regions become the hosts; without one it is the commented
    example. Raises WouldOverwrite, CannotWrite, NothingToImport.
    """
    path = path or Path(os.path.relpath(site_choice.OWN))
    made = _of_map(source) if source else None
    _write(path, made.text if made else inventory.init_text())
    site = "" if path.resolve() == site_choice.OWN else f" --site {shlex.quote(str(path))}"
    if made:
        _say_what_is_missing(report, path, made)
    report.say(
        f"{path} is written. Edit it, then run:\n"
        f"  invoke trust --host NAME{site}\n"
        f"  invoke deploy --host NAME{site}"
    )


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        if path.is_file():
            raise WouldOverwrite(
                f"{path} exists already, and invoke init never overwrites a file",
                next="edit it, or give another name: invoke init --path FILE",
            ) from None
        raise CannotWrite(
            f"{path} cannot be written: {error.strerror}", next="give another place: invoke init --path FILE"
        ) from None


def _of_map(source: Path) -> MadeSite:
    """Return the site file made of the map in that file. Raises NothingToImport."""
    found = _read(source)
    words = f"{found.kind}, {flow(source.name)}"
    made = site_of(found.map, source=words, is_headscales=found.is_headscales)
    if not made.hosts:
        raise NothingToImport(
            f"no region of {source} can be a host of a site file; nothing was written",
            why="\n".join(made.left_out) or "it has no region",
            next="invoke init, without --from, writes a commented example",
        )
    return made


def _read(source: Path) -> FoundMap:
    try:
        with source.open("rb") as file:
            content = file.read(_MOST + 1)
        if len(content) > _MOST:
            raise NoDerpMap(f"it has more than {_MOST >> 20} MiB")
        return found_in(content.decode("utf-8-sig"))
    except OSError as error:
        what, why = f"{source} cannot be read", error.strerror or ""
    except UnicodeDecodeError:
        what, why = f"{source} has no map", "it is not UTF-8 text"
    except NoDerpMap as error:
        what, why = f"{source} has no map", str(error)
    raise NothingToImport(
        f"{what}; nothing was written",
        why=why,
        next="give a Tailscale policy, a derpmap as JSON, or a file of headscale's derp.paths",
    )


def _say_what_is_missing(report: Report, path: Path, made: MadeSite) -> None:
    """Say which regions became hosts, which did not, and what the loader still asks for."""
    report.say(f"Its hosts: {', '.join(made.hosts)}")
    for words in made.left_out:
        report.say(f"Left out, as a comment in the file: {words}")
    try:
        inventory.load(path)
    except inventory.SiteError as error:
        report.say("\n  ".join(["Still to fill in:", *error.why.splitlines()]))
