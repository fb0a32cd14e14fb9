"""The reasons why an SSH login failed, in words, with what to do next."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Sequence
from pathlib import Path

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from engine.eager import EagerTransport
from engine.known_hosts import Pins
from engine.login import Login, Unreachable
from engine.proxy_command import ProxyLine
from engine.ssh_options import NOT_FOLLOWED, PINNING, named
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


_SAID_LINES = 5
_PROHIBITED = 1  # RFC 4254, 5.1
_NO_KEY_WHAT = "there is no key to log in with"
_NO_KEY = "no ssh.key and no ssh.password in the site file, no key in ~/.ssh, and none in an ssh-agent"


def explain(
    login: Login, error: Exception, line: object = None, transport: object = None
) -> DerpfleetError:
    """Return the error with the reason why the login failed, and what to do next.

    `line` and `transport`: the connection under SSH, and that of SSH, as far as they were made.
    """
    if isinstance(error, DerpfleetError):
        return error
    if isinstance(error, HostKeyRefused):
        return _refused_key(login, error.pins, error.offered)
    why = str(error) or type(error).__name__
    if isinstance(line, ProxyLine) and (words := line.failure):
        what, why = "the ProxyCommand of ~/.ssh/config failed", words
        step = f"run it by hand: {line.command}"
    elif isinstance(error, paramiko.ChannelException) and login.jump:
        what, step = _not_forwarded(login, error)
    elif isinstance(transport, EagerTransport) and not transport.remote_version:
        what, why, step = _no_ssh(why, transport.said)
    else:
        what, step = _login_failed(login, error)
        why = (_NO_KEY if what == _NO_KEY_WHAT else why) + _not_followed(login)
    prefix = "jump host: " if login.is_hop else ""
    return Unreachable(prefix + what, where=login.where, host=login.name, why=why, next=step)


def _login_failed(login: Login, error: Exception) -> tuple[str, str]:
    """Return what failed, and what to do next."""
    what, step = "no connection", "check the address, the port and the provider's firewall"
    if isinstance(error, paramiko.PasswordRequiredException):
        what = "the private key has a passphrase"
        step = "set ssh.key_passphrase, or add the key to your ssh-agent"
    elif isinstance(error, paramiko.AuthenticationException):
        what = "login refused"
        step = f"check ssh.user and ssh.key, or try: ssh -p {login.port} {login.user}@{login.address}"
    elif "No authentication methods available" in str(error):
        what = _NO_KEY_WHAT
        step = "set ssh.key of the host to your private key, or add the key to your ssh-agent"
    elif any(words in str(error) for words in _BAD_KEY):
        what = "the private key cannot be used"
        step = "check ssh.key (it must be the private key, not .pub) and ssh.key_passphrase of the host"
    elif isinstance(error, IncompatiblePeer):
        what = "the SSH server knows only algorithms that are not safe"
        step = "update the host's OpenSSH, or allow more in its sshd_config (KexAlgorithms, Ciphers, MACs)"
    elif isinstance(error, socket.gaierror):
        what, step = "the name does not resolve", "check ssh.address of the host"
    elif isinstance(error, FileNotFoundError | PermissionError) and error.filename:
        what, step = "the private key cannot be read", "check ssh.key of the host"
    return what, step


def _not_followed(login: Login) -> str:
    """Return a line that names the settings by which ssh may get in, and we do not; or ""."""
    names = named(NOT_FOLLOWED, login.settings)
    return f"\nof ~/.ssh/config these settings are not followed here: {names}" if names else ""


def _not_forwarded(login: Login, error: paramiko.ChannelException) -> tuple[str, str]:
    """Return what the last jump host did not do, and what to do next."""
    hop = login.hops()[-1]
    if error.code == _PROHIBITED:
        step = f"set AllowTcpForwarding yes in sshd_config of {hop.address}, or take another jump host"
        return f"the jump host {hop.address} does not forward connections", step
    step = f"check the address and the port, and whether {hop.address} may connect to them"
    return f"the jump host {hop.address} cannot connect to the host", step


def _no_ssh(why: str, said: Sequence[str]) -> tuple[str, str, str]:
    """Return what answers in place of an SSH server, its words, and what to do next."""
    words = "it said:\n" + "\n".join(said[:_SAID_LINES]) if said else why
    if said and said[0].startswith("HTTP/"):
        return "a web server answers on this port, not SSH", words, "check ssh.port of the host"
    return (
        "the port is open, but no SSH server answers",
        words,
        "check ssh.port of the host; if it is right, wait a minute and try again: the server may allow "
        "only a few logins at once (MaxStartups), or keep this address out for a while (fail2ban)",
    )


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
    skipped = _no_pins(login) + unusable_lines(login.known_hosts, pins)
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


def _no_pins(login: Login) -> str:
    """Return a line that names the settings in whose place the site's known_hosts counts; or ""."""
    names = named(PINNING, login.settings)
    return f"\nof ~/.ssh/config this does not count here: {names}" if names else ""


def unusable_lines(path: Path, pins: Pins) -> str:
    """Return a line of text for each line of known_hosts that cannot be used."""
    return "".join(f"\n{path}, {words}; it is skipped" for words in pins.skipped)


def _host(login: Login) -> str:
    return "jump host's" if login.is_hop else "host"


def fingerprint(key: paramiko.PKey) -> str:
    """Return `ssh-ed25519 SHA256:…`, as `ssh-keygen -l` prints it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"
