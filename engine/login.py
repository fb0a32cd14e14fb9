"""Logins: how to reach a host, from the site file and ~/.ssh/config.

A login is data, so a connection can be dialled before SSH is imported.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from engine.proxy_command import ProxyLine
from inventory.errors import DerpfleetError
from inventory.model import Ssh, jump_hosts
from inventory.secrets import read_secret

if TYPE_CHECKING:
    from paramiko.config import SSHConfig

CONNECT_S = 15
CONFIG = "~/.ssh/config"
NONE = "none"  # OpenSSH's word for no jump host


class Unreachable(DerpfleetError):
    """The login failed: network, host key, key or password."""

    exit_code = 3


class SshConfigWrong(DerpfleetError):
    """~/.ssh/config cannot be used; no host was contacted."""

    exit_code = 4


class Login:
    """The way to log in to one host. It can connect as often as needed."""

    def __init__(
        self, name: str, ssh: Ssh, *, address: str, known_hosts: Path, base: Path, is_hop: bool = False
    ) -> None:
        """Read ~/.ssh/config. Raises SshConfigWrong.

        `address`: where to connect when the site file does not say.
        `base`: the folder of the site file.
        `is_hop`: this is a jump host on the way to the host called `name`.
        """
        self.name = name
        self.is_hop = is_hop
        self.known_hosts = known_hosts
        self._ssh = ssh
        self._base = base
        self.alias = ssh.address or address
        with _reading_config(name):
            self.config = _ssh_config(self.alias)
            found: dict[str, Any] = self.config.lookup(self.alias) if self.config else {}
            self.address: str = found.get("hostname", self.alias)
            self.port = ssh.port or int(found.get("port", 22))
            self.user: str = ssh.user or found.get("user", "root")
            self.jump = _jump(ssh.jump, found.get("proxyjump", NONE), self.alias)
            self.proxy_command: str | None = None if self.jump else found.get("proxycommand")
        self.python = ssh.python

    @property
    def key_name(self) -> str:
        """Return the host's name in known_hosts."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    @property
    def where(self) -> str:
        """Return `user@address:port`, for an error message."""
        return f"{self.user}@{self.address}:{self.port}"

    @property
    def sudo(self) -> bool:
        """Whether root is reached through sudo."""
        return self.user != "root"

    def sudo_password(self) -> str | None:
        """Return the password for sudo, or None when sudo needs none."""
        ref = self._ssh.sudo_password or self._ssh.password
        return self._secret(ref) if ref and self.sudo else None

    def dial(self) -> socket.socket:
        """Open a connection to the host, by TCP or through the ProxyCommand. Raises OSError."""
        if self.proxy_command:
            return ProxyLine(self.proxy_command)
        line = socket.create_connection((self.address, self.port), CONNECT_S)
        # The messages behind a login must not wait until it is acknowledged.
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return line

    def hops(self) -> list[Login]:
        """Return the jump hosts in the order in which they are passed.

        Each is reached through those before it, with a key only: the passwords are the host's own.
        """
        words = self.jump.split(",") if self.jump else []
        found = []
        for number, word in enumerate(words):
            place = urlsplit(f"//{word}")
            changed = {"address": place.hostname, "user": place.username, "port": place.port}
            changed |= {"jump": ",".join(words[:number]) or None, "password": None, "sudo_password": None}
            ssh = self._ssh.model_copy(update=changed)
            found.append(
                Login(self.name, ssh, address="", known_hosts=self.known_hosts, base=self._base, is_hop=True)
            )
        return found

    def credentials(self) -> dict[str, Any]:
        """Return the site's key and passwords as paramiko's keywords.

        It is empty when the keys of ~/.ssh and of the ssh-agent are to be used.
        """
        ssh = self._ssh
        found: dict[str, Any] = {}
        if ssh.key:
            found["key_filename"] = ssh.key
        if ssh.key and not self.is_hop:  # a jump host may know another key of the operator
            found |= {"look_for_keys": False, "allow_agent": False}
        if ssh.key_passphrase:
            found["passphrase"] = self._secret(ssh.key_passphrase)
        if ssh.password:
            found |= {"password": self._secret(ssh.password), "look_for_keys": False, "allow_agent": False}
        return found

    def _secret(self, ref: str) -> str:
        return read_secret(ref, base=self._base).reveal()


@contextmanager
def _reading_config(host: str) -> Iterator[None]:
    """Turn every error of the block into SshConfigWrong.

    ~/.ssh/config is the only file here that the site's loader has not checked. `Exception` is
    caught because naming its parser would import SSH.
    """
    try:
        yield
    except Exception as error:
        why = str(error) or type(error).__name__
        step = f"fix it: `ssh -G {host}` shows which line is wrong"
        raise SshConfigWrong(f"{CONFIG} cannot be used", host=host, why=why, next=step) from error


def _jump(own: str | None, configured: str, alias: str) -> str | None:
    """Return the site's jump hosts, or the configured ones. Raises ValueError.

    As with ssh, `Host *` makes no host its own jump host.
    """
    hops = own or jump_hosts(configured.replace("ssh://", ""))
    circle = not own and alias in [urlsplit(f"//{hop}").hostname for hop in hops.split(",")]
    return None if circle or hops == NONE else hops


def _ssh_config(alias: str) -> SSHConfig | None:
    path = Path(CONFIG).expanduser()
    if not path.exists():
        return None
    from engine import ssh_config  # noqa: PLC0415  # slower than all other imports here

    return ssh_config.read(path, alias)
