"""Whether what the site names on this machine is there: keys, certificates, images, secrets in files and in the environment."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from inventory.choices import flavour_of, source_of
from inventory.document import Path as Keys
from inventory.model import Host, Site, Ssh
from inventory.problems import Problem
from inventory.secrets import SecretError, file_of, read_secret
from inventory.site_file import lines_of, written_at


def file_problems(site: Site, *, only: Collection[str] | None = None) -> list[Problem]:
    """What is not there or cannot be read, of all that will be used. Commands that print secrets are not run.

    `only`: the hosts to look at, by name; all when None.
    """
    named = [
        (("hosts", name, *path), value)
        for name, host in site.hosts.items()
        if only is None or name in only
        for path, value in (*_of_login(host.ssh), *_of_host(host))
    ]
    if site.control.ssh is not None:
        named += [((site.control.kind, *path), value) for path, value in _of_login(site.control.ssh)]
    wrong = [(path, why) for path, value in named if value and (why := _why_not(value, Path(site.path).parent))]
    lines = lines_of(site) if wrong else {}
    found = dict.fromkeys((*written_at(lines, path), why) for path, why in wrong)  # a wrong default is told once
    return [Problem(".".join(map(str, path)), line, why) for path, line, why in found]


def _of_login(ssh: Ssh) -> Iterator[tuple[Keys, str | None]]:
    yield ("ssh", "key"), ssh.key
    yield ("ssh", "key_passphrase"), ssh.key_passphrase
    yield ("ssh", "password"), ssh.password
    yield ("ssh", "sudo_password"), ssh.sudo_password


def _of_host(host: Host) -> Iterator[tuple[Keys, str | None]]:
    yield ("certificate", "ca"), host.certificate.ca
    if source_of(host).needs_files:
        yield ("certificate", "fullchain"), host.certificate.fullchain
        yield ("certificate", "key"), host.certificate.key
    if flavour_of(host).in_container:
        yield ("docker", "archive"), host.docker.archive


def _why_not(value: str, base: Path) -> str:
    """Why a path (absolute, as the loader makes them) or a secret's reference cannot be used, or ""."""
    if value.startswith("cmd:"):
        return ""
    if value.startswith("env:"):
        try:
            read_secret(value, base=base)
        except SecretError as error:
            return error.why
        return ""
    return why_unreadable(file_of(value, base=base) if value.startswith("file:") else Path(value))


def why_unreadable(path: Path) -> str:
    """Why a file cannot be used, or "". It is not opened: what is in a pipe can be read but once."""
    try:
        info = path.stat()
    except OSError as error:
        return f"{path}: {error.strerror}"
    if stat.S_ISDIR(info.st_mode):
        return f"{path} is a directory"
    if not os.access(path, os.R_OK):
        return f"{path}: you may not read it"
    return f"{path} is empty" if stat.S_ISREG(info.st_mode) and not info.st_size else ""
