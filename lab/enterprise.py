"""An Enterprise Linux 9 as a provider hands it over, made of Debian's programs.

Real are rpm, its database, dnf and the RPMs, which are made of Debian's packages. What it says of
itself, its presets, its nginx.conf and its Python are as on Rocky Linux. Its kernel is this
machine's, so SELinux is off.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from engine.cache import Progress, make_once
from lab import debian, pythons
from lab.files import remove_tree

# The tools that make a repository, and the names of protocols that EL's base has.
MORE = ("dnf", "rpm", "createrepo-c", "netbase")
# The packages in the repository, with all that they need.
OFFERED = ("nginx", "nftables", "firewalld", "supervisor", "chrony", "docker.io")
HERE = Path(__file__).parent
LIKENESS, PROGRAM = HERE / "templates" / "el9", HERE / "to_rpm.py"
_IN_ROOT = "/srv/make"
HOOKS = (
    f"mkdir -p \"$1\"{_IN_ROOT} \"$1\"/etc/rpm",
    f"copy-in {PROGRAM} {LIKENESS}/packages {_IN_ROOT}",
    f"copy-in {LIKENESS}/etc/rpm/macros /etc/rpm",
    f"chroot \"$1\" python3 {_IN_ROOT}/{PROGRAM.name} {_IN_ROOT}/packages {' '.join(OFFERED)}",
)
DEBIANS = (
    "etc/apt", "etc/dpkg", "etc/debian_version", "usr/lib/apt", "usr/lib/dpkg", "usr/share/dpkg",
    "var/cache/apt", "var/lib/apt", "var/lib/dpkg", _IN_ROOT.removeprefix("/"),
)  # fmt: skip
DEBIANS_PYTHON = "usr/libexec/lab/python3"
PLATFORM_PYTHON = "usr/libexec/platform-python"
BUNDLE = "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
OWN_PYTHON = "3.9"


def base(suite: str, *, cache: Path, progress: Progress) -> Path:
    """Return the folder of the root; make it first if it is not there. Raises LabError, CacheError.

    `suite`: the release of Debian that it is made of.
    """

    def make(partial: Path) -> None:
        began = time.monotonic()
        progress("Enterprise Linux root: making RPMs of Debian's packages (some minutes)")
        debian.bootstrap(partial, suite=suite, more=MORE, hooks=HOOKS)
        _dress(partial)
        progress(f"Enterprise Linux root: made in {time.monotonic() - began:.0f} s")

    files = [path.read_text() for path in sorted(LIKENESS.rglob("*")) if path.is_file()]
    files += [PROGRAM.read_text(), Path(__file__).read_text(), Path(pythons.__file__).read_text()]
    return make_once(cache / "lab" / f"base-el9-{debian.key_of(suite, *debian.PACKAGES, *files)}", make)


def _dress(root: Path) -> None:
    """Remove what only Debian has, and add what only Enterprise Linux has."""
    for name in (*DEBIANS, *(str(path.relative_to(root)) for path in root.glob("usr/bin/apt*"))):
        remove_tree(root / name)
    for path in root.glob("usr/bin/dpkg*"):
        path.unlink()
    for part in ("etc", "usr"):
        shutil.copytree(LIKENESS / part, root / part, dirs_exist_ok=True)
    _links(root, {"usr/bin/yum": "dnf-3", "usr/bin/dnf": "dnf-3"})
    _links(root, {BUNDLE: f"/{debian.CA_BUNDLE}", "etc/pki/tls/certs/ca-bundle.crt": f"/{BUNDLE}"})
    _own_python(root)


def _links(root: Path, links: dict[str, str]) -> None:
    for name, target in links.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)


def _own_python(root: Path) -> None:
    """Give the root the Python of its release. Debian's own is out of the way, for dnf."""
    [debians] = root.glob("usr/bin/python3.[0-9]*")
    place = root / DEBIANS_PYTHON
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(debians, place)
    if pythons.install(root, OWN_PYTHON, "usr/bin/python3", PLATFORM_PYTHON):
        debians.unlink()
    else:
        _links(root, {PLATFORM_PYTHON: f"/usr/bin/{debians.name}"})
