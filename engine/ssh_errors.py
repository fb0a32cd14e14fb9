"""The reasons why an SSH login failed, in words, with what to do next."""

from __future__ import annotations

import base64
import hashlib
import socket
from pathlib import Path

import paramiko

from engine.known_hosts import Pins
from engine.login import Login, Unreachable
from inventory.errors import DerpfleetError


class HostKeyRefused(paramiko.SSHException):
    """The host offers a key that is not pinned, or is revoked."""

    def __init__(self, pins: Pins, offered: paramiko.PKey) -> None:
        super().__init__("the host's key is refused")
        self.pins, self.offered = pins, offered


# Texts of paramiko's errors about a key's file, for which it has no class of its own.
_BAD_KEY = (
    *("not a valid", "Invalid key", "Unable to parse key", "unpack requires", "encountered RSA key"),
    "Bad password",
)


def explain(login: Login, error: Exception) -> DerpfleetError:
    """Return the error with the reason why the login failed, and what to do next."""
    if isinstance(error, DerpfleetError):
        return error
    if isinstance(error, HostKeyRefused):
        return _refused_key(login, error.pins, error.offered)
    prefix = "jump host: " if login.is_hop else ""
    what, step = "no connection", "check the address, the port and the provider's firewall"
    if isinstance(error, paramiko.PasswordRequiredException):
        what = "the private key has a passphrase"
        step = "set ssh.key_passphrase, or add the key to your ssh-agent"
    elif isinstance(error, paramiko.AuthenticationException):
        what = "login refused"
        step = f"check ssh.user and ssh.key, or try: ssh -p {login.port} {login.user}@{login.address}"
    elif any(words in str(error) for words in _BAD_KEY):
        what = "the private key cannot be used"
        step = "check ssh.key (it must be the private key, not .pub) and ssh.key_passphrase of the host"
    elif isinstance(error, socket.gaierror):
        what, step = "the name does not resolve", "check ssh.address of the host"
    elif isinstance(error, FileNotFoundError | PermissionError):
        what, step = "the private key cannot be read", "check ssh.key of the host"
    why = str(error) or type(error).__name__
    return Unreachable(prefix + what, where=login.where, host=login.name, why=why, next=step)


def unreadable(login: Login, error: OSError) -> Unreachable:
    """Return the error for a known_hosts that cannot be read."""
    why, step = error.strerror or str(error), "make it a file that you can read"
    what = f"{login.known_hosts} cannot be read"
    return Unreachable(what, where=login.where, host=login.name, why=why, next=step)


def revoked_key(login: Login, key: paramiko.PKey) -> Unreachable:
    """Return the error for a key that known_hosts calls revoked."""
    return Unreachable(
        f"the {_host(login)} key is REVOKED",
        where=login.where,
        host=login.name,
        why=f"{login.known_hosts} marks {fingerprint(key)} as @revoked; nothing was sent to the host",
        next=(
            "make new host keys on the provider's console (rm /etc/ssh/ssh_host_*; ssh-keygen -A; "
            f"systemctl restart ssh), then pin the new one: invoke trust --host {login.name} --replace"
        ),
    )


def _refused_key(login: Login, pins: Pins, offered: paramiko.PKey) -> Unreachable:
    """Return the error for a key that is not accepted: revoked, changed or not known."""
    name, trust = login.key_name, f"invoke trust --host {login.name}"
    if pins.is_revoked(name, offered):
        return revoked_key(login, offered)
    skipped = unusable_lines(login.known_hosts, pins)
    if pinned := pins.keys(name):
        shown = ", ".join(map(fingerprint, pinned))
        return Unreachable(
            f"the {_host(login)} key has CHANGED",
            where=login.where,
            host=login.name,
            why=(
                f"pinned {shown}, offered {fingerprint(offered)}: "
                f"the host was reinstalled, or another machine answers in its place{skipped}"
            ),
            next=(
                "compare the offered fingerprint with the host's own, on the provider's console; "
                f"if they are equal: {trust} --replace"
            ),
        )
    authority = ", only an @cert-authority: certificates of hosts are not supported"
    return Unreachable(
        f"the {_host(login)} key is not known",
        where=login.where,
        host=login.name,
        why=(
            f"{login.known_hosts} has no entry for {name}"
            f"{authority if pins.has_authority(name) else ''}{skipped}"
        ),
        next=f"compare the key with the host's own and pin it: {trust}",
    )


def unusable_lines(path: Path, pins: Pins) -> str:
    """Return a line of text for each line of known_hosts that cannot be used."""
    return "".join(f"\n{path}, {words}; it is skipped" for words in pins.skipped)


def _host(login: Login) -> str:
    return "jump host's" if login.is_hop else "host"


def fingerprint(key: paramiko.PKey) -> str:
    """Return `ssh-ed25519 SHA256:…`, as `ssh-keygen -l` prints it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"
