"""A real SELinux policy in a root of its own: the reference policy, as Debian has it.

It is asked for what it allows. It is not enforced: that would take a kernel that runs with SELinux.
"""

from __future__ import annotations

from pathlib import Path

from engine.cache import Progress, make_once
from lab import debian
from lab.process import run

SUITE = "bookworm"
MORE = (
    "selinux-policy-default", "policycoreutils-python-utils", "setools", "selinux-utils", "netbase",
)  # fmt: skip
STORE = "default"
CONTEXTS = f"/etc/selinux/{STORE}/contexts/files/file_contexts"


def root(*, cache: Path, progress: Progress) -> Path:
    """Return the folder of the root; make it first if it is not there.

    Raises LabError, CacheError.
    """

    def make(partial: Path) -> None:
        progress("SELinux policy: fetching and compiling it (some two minutes)")
        debian.bootstrap(partial, suite=SUITE, more=MORE)

    key = debian.key_of(SUITE, *debian.PACKAGES, *MORE)
    return make_once(cache / "lab" / f"policy-{key}", make)


def allowed(root: Path, source: str, target: str, permission: str) -> list[str]:
    """Return the rules that allow a permission on TCP sockets, each with its boolean."""
    [policy] = (root / f"etc/selinux/{STORE}/policy").iterdir()
    inside = f"/{policy.relative_to(root)}"
    argv = ["sesearch", "--allow", "--source", source, "--target", target, "--class", "tcp_socket"]
    return run(["chroot", str(root), *argv, "--perm", permission, inside]).splitlines()


def label(root: Path, path: str) -> str:
    """Return the type of a file by its path."""
    found = run(["chroot", str(root), "matchpathcon", "-n", "-f", CONTEXTS, path])
    return found.strip().split(":")[2]


def ports(root: Path) -> str:
    """Return the labels of ports, as `semanage port --list` prints them."""
    argv = ["semanage", "port", "--store", STORE, "--noreload", "--list", "--noheading"]
    return run(["chroot", str(root), *argv])
