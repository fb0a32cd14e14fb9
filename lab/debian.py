"""A bare Debian, as a VPS provider hands it over: systemd, sshd, Python, and nothing that a relay
needs.

Made once for each release by mmdebstrap and kept unpacked in `.cache/lab/base-<key>`, the lower
layer of its hosts' overlays. The machine's settings for package servers (mirror, proxy, CA
certificates) are copied into the hosts.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from engine.cache import Progress, make_once
from lab.certificates import machine_bundle
from lab.files import remove_tree, write_tree
from lab.process import run

PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo", "python3",
    "ca-certificates", "curl", "iproute2", "iputils-ping", "kmod", "procps", "less",
)  # fmt: skip
# Two logins beside root, as a provider's first-boot script makes them: sudo asks the first for its
# password.
ADMIN, ADMIN_WITHOUT_PASSWORD = "ops", "auto"
SETUP = (
    f"useradd --create-home --shell /bin/bash --groups sudo {ADMIN}",
    f"useradd --create-home --shell /bin/bash --groups sudo {ADMIN_WITHOUT_PASSWORD}",
    f"echo '{ADMIN_WITHOUT_PASSWORD} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{ADMIN_WITHOUT_PASSWORD}",
    "rm -f /etc/ssh/ssh_host_* /etc/hostname /etc/machine-id /var/lib/dbus/machine-id",
    # No apt runs by itself at a random time; a test that wants a busy apt starts one.
    "systemctl disable --quiet apt-daily.timer apt-daily-upgrade.timer",
)
# Packages follow. It asks nothing.
INSTALL = (
    *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install"),
    *("-q", "-y", "--no-install-recommends"),
)
CA_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
OWN_CAS = Path("/usr/local/share/ca-certificates")
ARCHIVES = Path("var/cache/apt/archives")
_CARRIED = re.compile(r"^Acquire::(https?|ftp|Check-|Retries|Force|Languages|GzipIndexes)")
_STANDARD = re.compile(r"^(?P<uri>\S+) (?P<suite>[a-z]+)(?P<part>|-updates|-security) Debian$", re.MULTILINE)


def base(suite: str, *, cache: Path, progress: Progress) -> Path:
    """Return the folder of a release's bare root; make it first if it is not there.

    Two callers at once make it once. Raises LabError, CacheError.
    """

    def make(partial: Path) -> None:
        began = time.monotonic()
        progress(f"Debian {suite} root: fetching and unpacking packages (about half a minute)")
        bootstrap(partial, suite=suite)
        progress(f"Debian {suite} root: made in {time.monotonic() - began:.0f} s")

    return make_once(cache / "lab" / f"base-{key_of(suite, *PACKAGES, *SETUP)}", make)


def bootstrap(root: Path, *, suite: str, more: Sequence[str] = (), hooks: Sequence[str] = ()) -> None:
    """Make the bare root of a release, with `more` packages.

    `hooks` are run last, as mmdebstrap's --customize-hook. Raises LabError.
    """
    packages = ",".join([*PACKAGES, *more])
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", "--format=directory", f"--include={packages}"]
    argv += [f"--aptopt={line}" for line in apt_options()]
    steps = [f'chroot "$1" sh -c {shlex.quote(step)}' for step in SETUP]
    argv += [f"--customize-hook={hook}" for hook in (*steps, *hooks)]
    what = "the hosts' root could not be made"
    run([*argv, suite, str(root), *sources(suite)], timeout_s=1800, what=what)


def key_of(*parts: str) -> str:
    """Return the name of a root by all that it is made of."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def lay_out(base_root: Path, folder: Path, *, suite: str, cache: Path, ca: Path) -> None:
    """Lay out the parts of one host's file system, as `lab.host` mounts them.

    They are `base`, which all hosts share; `upper` with the host's own files; `work` and `root` for
    the mount; and `var`, a copy, since Docker wants no overlay below its own. A host with apt can
    reach package servers, and has the packages that earlier hosts fetched. All trust `ca` besides
    this machine's roots.
    """
    remove_tree(folder)
    for name in ("upper", "work", "root"):
        (folder / name).mkdir(parents=True)
    (folder / "base").symlink_to(base_root)
    run(["cp", "-a", "--reflink=auto", str(base_root / "var"), str(folder / "var")], timeout_s=300)
    write_tree(folder / "upper", _ca_certificates(ca), like=base_root)
    if not (base_root / "etc/apt").is_dir():
        return
    carried: dict[str, str | bytes] = {"etc/apt/apt.conf.d/90lab": "\n".join(apt_options()) + "\n"}
    if lines := sources(suite):
        carried["etc/apt/sources.list"] = "\n".join(lines) + "\n"
    write_tree(folder / "upper", carried, like=base_root)
    for package in _archives(cache, suite).glob("*.deb"):
        _link(package, folder / ARCHIVES)


def keep_packages(folder: Path, *, suite: str, cache: Path) -> None:
    """Keep the packages that a host has fetched by apt for the next host of its release."""
    kept = _archives(cache, suite)
    for package in (folder / ARCHIVES).glob("*.deb"):
        if not (kept / package.name).exists():
            _link(package, kept)


def apt_options() -> list[str]:
    """Return the settings by which this machine's apt reaches its servers: proxies, time-outs,
    checks.

    They are lines for apt.conf.
    """
    return [
        line
        for line in run(["apt-config", "dump", "Acquire"]).splitlines()
        if _CARRIED.match(line) and not line.endswith(' "";')
    ]


@cache
def servers() -> dict[str, str]:
    """Return this machine's Debian servers; none on another system. apt needs half a second for it.

    The form is {"": URI, "-updates": URI, "-security": URI}.
    """
    wanted = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(ORIGIN)",
        "Identifier: Packages",
    ]
    found = {match["part"]: match["uri"] for match in _STANDARD.finditer(run(wanted))}
    return found if len(found) == 3 else {}


def sources(suite: str) -> list[str]:
    """Return `deb` lines of a release from this machine's servers; none: Debian's own serve."""
    return [f"deb {uri} {suite}{part} main" for part, uri in sorted(servers().items())]


def _ca_certificates(ca: Path) -> dict[str, str | bytes]:
    """Return the files of a host's trusted roots, by path.

    They are the bundle, the certificates that were added on this machine, and `ca`, as if it had
    been added there.
    """
    own: dict[str, str | bytes] = {
        str(path.relative_to("/")): path.read_bytes() for path in OWN_CAS.rglob("*.crt")
    }
    added, root = f"{OWN_CAS.relative_to('/')}/derp-lab.crt", ca.read_text()
    by_hash = f"etc/ssl/certs/{run(['openssl', 'x509', '-noout', '-hash', '-in', str(ca)]).strip()}.0"
    return own | {CA_BUNDLE: machine_bundle() + root, added: root, by_hash: root}


def _archives(cache: Path, suite: str) -> Path:
    folder = cache / "lab" / "packages" / suite
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _link(file: Path, folder: Path) -> None:
    """Link a file, which no program changes in place; copy it on a file system without links."""
    try:
        os.link(file, folder / file.name)
    except FileExistsError:
        pass
    except OSError:
        shutil.copyfile(file, folder / file.name)
