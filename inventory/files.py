"""The files and secrets on this machine that the site file names: are they there?

They are keys, certificates, images, and secrets in files and in the environment.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from inventory.choices import runner_of, source_of
from inventory.document import Path as Keys
from inventory.model import Host, Site, Ssh
from inventory.problems import Problem
from inventory.secrets import SecretError, file_of, read_secret
from inventory.site_file import lines_of, written_at

_NODE_KEY = re.compile("(nodekey:)?[0-9A-Fa-f]{64}")


def file_problems(site: Site, *, only: Collection[str] | None = None) -> list[Problem]:
    """Return the files and secrets that will be used and are missing or cannot be read.

    Commands that print secrets are not run. `only`: names of the hosts to look at; all when None.
    """
    named = [
        (("hosts", name, *path), value)
        for name, host in site.hosts.items()
        if only is None or name in only
        for path, value in (
            (*_of_login(host.ssh), *_of_host(host)) if host.managed else _of_others(host)
        )
    ]
    for name, ssh in site.control.hosts().items():
        named += [((name, *path), value) for path, value in _of_login(ssh)]
    named += [
        ((site.control.kind, *key.split(".")), reference) for key, reference in site.control.secrets().items()
    ]
    named.append((("prover",), site.prover))
    base = Path(site.path).parent
    wrong = [(path, why) for path, value in named if value and (why := _why_not(value, base))]
    seen = {path for path, _ in wrong}
    for path, value in named:
        if path[-1:] == ("keys_file",) and value and path not in seen and (why := _why_no_keys(Path(value))):
            wrong.append((path, why))
    lines = lines_of(site) if wrong else {}
    # a wrong default is reported once
    found = dict.fromkeys((*written_at(lines, path), why) for path, why in wrong)
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
    if source_of(host).is_acme:
        dns, account = host.certificate.dns, host.certificate.account
        yield ("certificate", "dns", "secret"), dns.secret if dns else None
        yield ("certificate", "account", "hmac"), account.hmac if account else None
    yield ("relay", "keys_file"), host.relay.keys_file
    if runner_of(host).in_container:
        yield ("docker", "archive"), host.docker.archive


def _of_others(host: Host) -> Iterator[tuple[Keys, str | None]]:
    """Yield what the proof of a relay needs that somebody else runs."""
    yield ("certificate", "ca"), host.certificate.ca
    yield ("relay", "mesh_key"), host.relay.mesh_key


def _why_not(value: str, base: Path) -> str:
    """Return why a path or a secret's reference cannot be used, or "". Paths are absolute."""
    if value.startswith("cmd:"):
        return ""
    if value.startswith("env:"):
        try:
            read_secret(value, base=base)
        except SecretError as error:
            return error.why
        return ""
    return why_unreadable(file_of(value, base=base) if value.startswith("file:") else Path(value))


def _why_no_keys(path: Path) -> str:
    """Return why a file is no list of node keys, as our relay's -allow-file reads them, or ""."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        return f"{path} is no text: {error}"
    keys = [(number, words[0]) for number, words in enumerate(lines, 1) if words and words[0][0] != "#"]
    for number, key in keys:
        if not _NODE_KEY.fullmatch(key):
            return f"{path}, line {number}: not a node key, as nodekey: with 64 hex digits"
    return "" if keys else f"{path} has no node key, so nobody could use the relay"


def why_unreadable(path: Path) -> str:
    """Return why a file cannot be used, or "".

    The file is not opened, because the content of a pipe can be read only once.
    """
    try:
        info = path.stat()
    except OSError as error:
        return f"{path}: {error.strerror}"
    if stat.S_ISDIR(info.st_mode):
        return f"{path} is a directory"
    if not os.access(path, os.R_OK):
        return f"{path}: you may not read it"
    return f"{path} is empty" if stat.S_ISREG(info.st_mode) and not info.st_size else ""
