"""How to reach a host: the site's words joined with ~/.ssh/config. Data, so that a connection can be dialled before SSH is imported."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from inventory.errors import DerpfleetError
from inventory.model import Ssh, jump_hosts
from inventory.secrets import read_secret

if TYPE_CHECKING:
    from paramiko.config import SSHConfig

CONNECT_S = 15
CONFIG = "~/.ssh/config"
NONE = "none"  # OpenSSH's word for no jump host


class Unreachable(DerpfleetError):
    """No login: network, host key, key or password."""

    exit_code = 3


class SshConfigWrong(DerpfleetError):
    """~/.ssh/config cannot be used; nothing was contacted."""

    exit_code = 4


class Login:
    """How to reach one host: made from the site, connects as often as asked."""

    def __init__(self, name: str, ssh: Ssh, *, address: str, known_hosts: Path, base: Path, is_hop: bool = False) -> None:
        """`address` is what to connect to when the site says nothing else; `base` is the folder of the site file.

        `is_hop`: it is a jump host on the way to the host called `name`. Raises SshConfigWrong.
        """
        self.name = name
        self.is_hop = is_hop
        self.known_hosts = known_hosts
        self._ssh = ssh
        self._base = base
        self.alias = ssh.address or address
        with _reading_config(name):
            self.config = _ssh_config()
            found: dict[str, Any] = self.config.lookup(self.alias) if self.config else {}
            self.address: str = found.get("hostname", self.alias)
            self.port = ssh.port or int(found.get("port", 22))
            self.user: str = ssh.user or found.get("user", "root")
            self.jump = _jump(ssh.jump, found.get("proxyjump", NONE), self.alias)
            self.proxy_command: str | None = None if self.jump else found.get("proxycommand")
            self.is_direct = not (self.jump or self.proxy_command)
        self.python = ssh.python

    @property
    def key_name(self) -> str:
        """The host as known_hosts names it."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    @property
    def where(self) -> str:
        """`user@address:port`, for an error message."""
        return f"{self.user}@{self.address}:{self.port}"

    @property
    def sudo(self) -> bool:
        """Whether root is reached through sudo."""
        return self.user != "root"

    def sudo_password(self) -> str | None:
        """The password that sudo wants, or None when it asks for none."""
        ref = self._ssh.sudo_password or self._ssh.password
        return self._secret(ref) if ref and self.sudo else None

    def dial(self) -> socket.socket:
        """A TCP connection to the host. Raises OSError."""
        line = socket.create_connection((self.address, self.port), CONNECT_S)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what follows a login does not wait for its acknowledgement
        return line

    def hops(self) -> list[Login]:
        """The jump hosts, in the order in which they are passed; each is reached through those before it, and by key alone."""
        words = self.jump.split(",") if self.jump else []
        found = []
        for number, word in enumerate(words):
            place = urlsplit(f"//{word}")
            changed = {"address": place.hostname, "user": place.username, "port": place.port, "jump": ",".join(words[:number]) or None}
            ssh = self._ssh.model_copy(update={**changed, "password": None, "sudo_password": None})  # the host's own business
            found.append(Login(self.name, ssh, address="", known_hosts=self.known_hosts, base=self._base, is_hop=True))
        return found

    def credentials(self) -> dict[str, Any]:
        """The site's key and passwords as paramiko's keywords; nothing when ~/.ssh and the agent have to do."""
        ssh = self._ssh
        found: dict[str, Any] = {}
        if ssh.key:
            found["key_filename"] = ssh.key
        if ssh.key and not self.is_hop:  # a jump host often knows another one of the person's keys
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
    """The only file here that the site's loader has not looked at. Its parser is not named, as it may not be imported."""
    try:
        yield
    except Exception as error:
        why = str(error) or type(error).__name__
        raise SshConfigWrong(f"{CONFIG} cannot be used", host=host, why=why, next=f"mend it: ssh -G {host} says where") from error


def _jump(own: str | None, configured: str, alias: str) -> str | None:
    """The site's word, or the configured one; but as with ssh, `Host *` makes nobody his own jump host. Raises ValueError."""
    hops = own or jump_hosts(configured.replace("ssh://", ""))
    circle = not own and alias in [urlsplit(f"//{hop}").hostname for hop in hops.split(",")]
    return None if circle or hops == NONE else hops


def _ssh_config() -> SSHConfig | None:
    path = Path(CONFIG).expanduser()
    if not path.exists():
        return None
    from paramiko.config import SSHConfig  # noqa: PLC0415  # takes longer to import than all else here

    return SSHConfig.from_path(str(path))
