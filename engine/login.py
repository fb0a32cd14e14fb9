"""Logins: how to reach a host, from the site file and ~/.ssh/config.

A login is data, so a connection can be dialled before SSH is imported.
"""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.proxy_command import ProxyLine
from engine.ssh_options import NotSupported
from inventory.errors import DerpfleetError
from inventory.model import Ssh
from inventory.secrets import read_secret
from inventory.values import jump_hosts

CONNECT_S = 15
CONFIG = "~/.ssh/config"
SYSTEM_CONFIG = "/etc/ssh/ssh_config"
NONE = "none"  # OpenSSH's word for no jump host, no key and no agent
FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
_PUBLIC = ".pub"
_DEFAULT_KEYS = ("id_rsa", "id_ecdsa", "id_ed25519")
# Reading a file imports SSH, which takes long. The files of distributions say no more than this.
_NOTHING = "Host|Match|Include|SendEnv|HashKnownHosts|GSSAPI|ForwardX11"
_MATTERS = re.compile(rf"^\s*(?!{_NOTHING})[A-Z]", re.I | re.M)


class Unreachable(DerpfleetError):
    """The login failed: network, host key, key or password."""

    exit_code = 3


class SshConfigWrong(DerpfleetError):
    """~/.ssh/config cannot be used; no host was contacted."""

    exit_code = 4


class Login:
    """The way to log in to one host. It can connect as often as needed."""

    def __init__(
        self, name: str, ssh: Ssh, *, address: str, known_hosts: Path, base: Path, behind: Sequence[str] = ()
    ) -> None:
        """Read ~/.ssh/config. Raises SshConfigWrong.

        `address`: where to connect when the site file does not say.
        `base`: the folder of the site file.
        `behind`: the addresses reached through this jump host, first that of the host called
        `name`. None when it is the host itself.
        """
        self.name = name
        self.is_hop = bool(behind)
        self._behind = behind
        self.known_hosts = known_hosts
        self._ssh = ssh
        self._base = base
        self.alias = ssh.address or address
        with reading_config(name):
            found = self.settings = _settings(self.alias, {"User": ssh.user, "Port": ssh.port})
            self.address: str = found.get("hostname", self.alias)
            self.port = ssh.port or int(found.get("port", 22))
            self.user: str = ssh.user or found.get("user", "root")
            self.family = FAMILIES[found.get("addressfamily", "any").lower()]
            jump, to_run = _ways(found)
            self.jump = _jump(ssh.jump, jump, (*behind, self.alias))
            self.proxy_command: str | None = None if self.jump else to_run
        self.python = ssh.python

    @property
    def key_name(self) -> str:
        """Return the host's name in known_hosts. An alias has no port, as with ssh."""
        if alias := self.settings.get("hostkeyalias"):
            return str(alias)
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
        line = self._connected()
        # The messages behind a login must not wait until it is acknowledged.
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return line

    def _connected(self) -> socket.socket:
        """Return a TCP connection from and to the configured kinds of addresses. Raises OSError."""
        own = self.settings.get("bindaddress")
        source = (str(own), 0) if own else None
        if self.family == socket.AF_UNSPEC:
            return socket.create_connection((self.address, self.port), CONNECT_S, source)
        found = socket.getaddrinfo(self.address, self.port, self.family, socket.SOCK_STREAM)
        *others, last = [str(each[4][0]) for each in found]
        for address in others:
            with suppress(OSError):
                return socket.create_connection((address, self.port), CONNECT_S, source)
        return socket.create_connection((last, self.port), CONNECT_S, source)

    def hops(self) -> list[Login]:
        """Return the jump hosts in the order in which they are passed.

        Each is reached through those before it, with a key only: the passwords are the host's own.
        The first one may be configured to be reached through others. Raises SshConfigWrong.
        """
        words = self.jump.split(",") if self.jump else []
        found: list[Login] = []
        for number, word in enumerate(words):
            place = urlsplit(f"//{word}")
            changed = {"address": place.hostname, "user": place.username, "port": place.port}
            changed |= {"jump": ",".join(words[:number]) or None, "password": None, "sudo_password": None}
            ssh, behind = self._ssh.model_copy(update=changed), (*self._behind, self.alias)
            more: dict[str, Any] = {"known_hosts": self.known_hosts, "base": self._base, "behind": behind}
            hop = Login(self.name, ssh, address="", **more)
            found += [hop] if number else [*hop.hops(), hop]
        return found

    def credentials(self) -> dict[str, Any]:
        """Return the site's key and passwords as paramiko's keywords.

        It is empty when the keys of ~/.ssh and of the ssh-agent are to be used. A key that is only
        configured may be missing, as with ssh.
        """
        ssh = self._ssh
        found: dict[str, Any] = {}
        configured = self.settings.get("identityfile", [])
        keys = [path for path in configured if not path.endswith(_PUBLIC) and Path(path).is_file()]
        if ssh.key or keys:
            found["key_filename"] = [*([ssh.key] if ssh.key else []), *keys]
        if configured:
            found["look_for_keys"] = False
        if ssh.key and not self.is_hop:  # a jump host may know another key of the operator
            found |= {"look_for_keys": False, "allow_agent": False}
        if ssh.key_passphrase:
            found["passphrase"] = self._secret(ssh.key_passphrase)
        if ssh.password:
            found |= {"password": self._secret(ssh.password), "look_for_keys": False, "allow_agent": False}
        return found

    def agent(self) -> tuple[str, list[bytes] | None]:
        """Return the place of the ssh-agent, and the public keys that may be offered, or None."""
        place = str(self.settings.get("identityagent", ""))
        if self.settings.get("identitiesonly", "no").lower() != "yes":
            return place, None
        default = [str(Path("~/.ssh").expanduser() / name) for name in _DEFAULT_KEYS]
        paths = self.settings.get("identityfile", default)
        found = [_public_key(Path(path.removesuffix(_PUBLIC) + _PUBLIC)) for path in paths]
        return place, [key for key in found if key]

    def _secret(self, ref: str) -> str:
        return read_secret(ref, base=self._base).reveal()


@contextmanager
def reading_config(host: str) -> Iterator[None]:
    """Turn every error of the block into SshConfigWrong.

    ~/.ssh/config is the only file here that the site's loader has not checked. `Exception` is
    caught because naming its parser would import SSH.
    """
    try:
        yield
    except Exception as error:
        why = str(error) or type(error).__name__
        step = f"fix it: `ssh -G {host}` shows which line is wrong"
        if isinstance(error, NotSupported):
            step = "put it into a Host block that leaves this host out"
        raise SshConfigWrong(f"{CONFIG} cannot be used", host=host, why=why, next=step) from error


def _ways(found: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the configured jump hosts and ProxyCommand; the first of them counts, as in ssh."""
    jump, order = found.get("proxyjump", NONE), list(found)
    if jump.lower() == NONE:
        return NONE, found.get("proxycommand")
    if "proxycommand" in found and order.index("proxycommand") < order.index("proxyjump"):
        return NONE, found["proxycommand"]
    return jump, None


def _jump(own: str | None, configured: str, through: Sequence[str]) -> str | None:
    """Return the site's jump hosts, or the configured ones. Raises ValueError.

    `through`: the addresses that are reached through them; the last one is the host's own. As with
    ssh, `Host *` makes no host its own jump host.
    """
    hops = own or jump_hosts(configured.replace("ssh://", ""))
    places = [urlsplit(f"//{hop}").hostname for hop in hops.split(",")]
    if hops.lower() == NONE or (not own and through[-1] in places):
        return None
    if circle := set(places) & set(through[:-1]):
        raise ValueError(f"the jump hosts lead to each other: {', '.join(map(str, circle))}")
    return hops


def _public_key(path: Path) -> bytes:
    """Return the public key of a file; b"" when there is none."""
    with suppress(OSError, ValueError, IndexError):
        return base64.b64decode(path.read_text().split()[1], validate=True)
    return b""


def _settings(alias: str, given: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings of ssh's files for a host; none when there are no files."""
    files = [path for path in (Path(CONFIG).expanduser(),) if path.exists()]
    files += [path for path in (Path(SYSTEM_CONFIG),) if _matters(path)]
    if not files:
        return {}
    from engine import ssh_config  # noqa: PLC0415  # slower than all other imports here

    return ssh_config.read(files, alias, given)


def _matters(path: Path) -> bool:
    """Whether the system's file, or one beside it, sets anything that may count here."""
    files = [path, *path.with_name(f"{path.name}.d").glob("*.conf")]
    return any(_MATTERS.search(file.read_text(errors="replace")) for file in files if file.exists())
