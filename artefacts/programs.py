"""The parts that the programs for hosts are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from inventory.choices import DnsProviderName

PYTHON_FLOOR = (3, 10)  # the relay's, and that of the locked certbot


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """The parts of a release.

    `lock`: a file under requirements/. `packages`: those of this checkout.
    `main`: the text of `__main__.py`.
    """

    name: str
    lock: str
    packages: tuple[str, ...]
    main: str


@dataclass(frozen=True, kw_only=True)
class Binary:
    """A Go program as a release.

    `architectures`: the machines that it is built for, as `uname -m` names them.
    """

    name: str
    architectures: tuple[str, ...] = ("x86_64", "aarch64")

    @property
    def program(self) -> str:
        """Return its place in the release. SELinux lets systemd start what is in a bin/."""
        return f"bin/{self.name}"


DERPER = Binary(name="derper")
TAILSCALED = Binary(name="tailscaled")
RELAY = Artefact(
    name="relay",
    lock="relay.lock",
    packages=("relay",),
    main='import runpy\n\nrunpy.run_module("relay", run_name="__main__", alter_sys=True)\n',
)
CERTBOT = Artefact(
    name="certbot",
    lock="certbot.lock",
    packages=(),
    main="import sys\n\nfrom certbot.main import main\n\nsys.exit(main())\n",
)


def certbot_with(provider: DnsProviderName) -> Artefact:
    """Return certbot with its plugin for a provider of DNS zones."""
    name = f"certbot-dns-{provider}"
    return replace(CERTBOT, name=name, lock=f"{name}.lock")
