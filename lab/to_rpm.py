"""Make RPMs of Enterprise Linux's layout out of Debian packages, and a repository of them.

Run as root in a Debian root that becomes an Enterprise Linux (`lab.enterprise`):
`python3 to_rpm.py OVERLAYS PACKAGE…`. The packages and all that they need are taken. Files below
OVERLAYS/NAME replace those of a package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

WORK, REPOSITORY = Path("/srv/rpmbuild"), Path("/srv/repo")
# Python of Debian's programs, out of the way of the one that the host is to have.
DEBIANS_PYTHON = "/usr/libexec/lab/python3"
RENAMED = {"nginx-common": "nginx-filesystem", "docker.io": "docker-ce", "containerd": "containerd.io"}
# Maintainer scripts do not run. This is what some of them do, and what those of RPMs do.
BEFORE = {
    "nginx-filesystem": (
        "getent group nginx >/dev/null || groupadd -r nginx",
        "getent passwd nginx >/dev/null || useradd -r -g nginx -d /var/lib/nginx -s /sbin/nologin nginx",
    ),
    "docker-ce": ("getent group docker >/dev/null || groupadd -r docker",),
}
POLICY = "/usr/share/polkit-1/actions/org.fedoraproject.FirewallD1"
TABLES = ("iptables", "iptables-save", "iptables-restore")
AFTER = {
    "iptables": tuple(
        f"ln -sf xtables-nft-multi /usr/sbin/{prefix}{name.removeprefix('ip')}"
        for name in TABLES for prefix in ("ip", "ip6")
    ),
    "polkitd": ("systemd-sysusers >/dev/null 2>&1 || :",),
    "supervisor": ("systemd-tmpfiles --create supervisor.conf",),
    "firewalld": (f"ln -sf {POLICY}.server.policy.choice {POLICY}.policy",),  # else each call hangs
}
# What an Enterprise Linux does not have of Debian's.
NOT_THERE = (
    "usr/share/doc", "usr/share/lintian", "etc/init.d", "etc/default", "usr/share/nginx/modules",
    "etc/nginx/sites-available", "etc/nginx/sites-enabled", "etc/nginx/modules-available",
    "etc/nginx/modules-enabled", "etc/supervisor", "usr/lib/systemd/system/supervisor.service",
)  # fmt: skip
FOLDERS = {
    "nginx-filesystem": (
        "etc/nginx/conf.d", "etc/nginx/default.d", "usr/share/nginx/modules", "var/lib/nginx/tmp",
        "var/log/nginx",
    ),
    "supervisor": ("etc/supervisord.d", "var/log/supervisor"),
}  # fmt: skip
BASE = (
    "bash", "coreutils", "systemd", "python3", "openssl", "ca-certificates", "iproute", "sudo", "glibc",
    "dbus", "openssh-server", "tar", "gzip", "shadow-utils", "policycoreutils", "rpm", "dnf",
)  # fmt: skip
PROVIDES = "system-release = 9.6, system-release(releasever) = 9, redhat-release, /bin/sh, /usr/bin/sh"
SPEC = """\
Name: {name}
Version: {version}
Release: {release}
Summary: {name}, made of Debian's package
License: as the Debian package's
BuildArch: {arch}
AutoReqProv: no
{relations}
%global debug_package %{{nil}}
%global __os_install_post %{{nil}}
%define _binary_payload w1.gzdio
%description
.
%files
%defattr(-,root,root,-)
{files}
{scripts}
"""


def run(*argv: str, cwd: Path | None = None) -> str:
    """Return the output of a command that has to succeed."""
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, cwd=cwd).stdout


def download(packages: list[str]) -> list[Path]:
    """Fetch the packages and all that they need and the root lacks."""
    argv = ["apt-get", "-qq", "--print-uris", "-y", "--no-install-recommends", "install", *packages]
    names = re.findall(r"^'\S+' ([^_\s]+)_", run(*argv), re.M)
    run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *names, cwd=WORK)
    return sorted(WORK.glob("*.deb"))


def field(deb: Path, name: str) -> str:
    return run("dpkg-deb", "--field", str(deb), name).strip()


def relations(deb: Path, there: set[str]) -> list[str]:
    """Return the lines about other packages: those that are converted as well are needed."""
    named = re.findall(r"(?:^|[,|]) ?([a-z0-9.+-]+)", field(deb, "Depends"))
    needed = dict.fromkeys(name for name in named if name in there and name != field(deb, "Package"))
    return [f"Requires: {RENAMED.get(name, name)}" for name in needed]


def unpack(deb: Path, name: str, overlays: Path) -> Path:
    """Unpack a package as Enterprise Linux lays it out. Return the folder."""
    root = WORK / "trees" / name
    root.mkdir(parents=True)
    run("dpkg-deb", "--extract", str(deb), str(root))
    for old in ("lib", "bin", "sbin"):
        if (root / old).is_dir():
            (root / "usr" / old).mkdir(parents=True, exist_ok=True)
            run("cp", "-a", f"{root / old}/.", str(root / "usr" / old))
            shutil.rmtree(root / old)
    for gone in NOT_THERE:
        run("rm", "-rf", str(root / gone))
    for folder in FOLDERS.get(name, ()):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if (overlays / name).is_dir():
        run("cp", "-r", f"{overlays / name}/.", str(root))
    for program in [*root.glob("usr/bin/*"), *root.glob("usr/sbin/*")]:
        with_debians_python(program)
    return root


def with_debians_python(program: Path) -> None:
    """Let a program of Debian's in Python find Debian's modules."""
    if program.is_symlink() or not program.is_file():
        return
    content = program.read_bytes()
    first, rest = content.split(b"\n", 1) if content.startswith(b"#!/usr/bin/python3") else (b"", b"")
    if first:
        program.write_bytes(first.replace(b"/usr/bin/python3", DEBIANS_PYTHON.encode()) + b"\n" + rest)


def listed(root: Path) -> list[str]:
    """Return the lines of %files: every file, and the folders that are empty."""
    lines = []
    for path in sorted(root.rglob("*")):
        name = f'"/{path.relative_to(root)}"'
        if path.is_dir() and not path.is_symlink():
            lines += [] if any(path.iterdir()) else [f"%dir {name}"]
        else:
            lines.append(f"%config(noreplace) {name}" if name.startswith('"/etc/') else name)
    return lines


def scripts(root: Path, name: str) -> str:
    """Return the package's scripts. Its units are enabled as the presets say, and not started."""
    units = [path.name for path in root.glob("usr/lib/systemd/system/*.service")]
    preset = [f"systemctl preset {' '.join(units)} >/dev/null 2>&1 || :"] if units else []
    before, after = BEFORE.get(name, ()), (*AFTER.get(name, ()), *preset)
    parts = (("%pre", before), ("%post", after))
    return "\n".join("\n".join((head, *lines)) for head, lines in parts if lines)


def build(spec: str, root: Path, name: str) -> None:
    """Build the RPM of a tree into the repository."""
    file = WORK / f"{name}.spec"
    file.write_text(spec)
    defines = [f"_topdir {WORK}/top", f"_rpmdir {REPOSITORY}", "_build_id_links none"]
    words = [word for define in defines for word in ("--define", define)]
    run("rpmbuild", "-bb", "--quiet", *words, "--buildroot", str(root), "--noclean", str(file))


def convert(deb: Path, there: set[str], overlays: Path) -> None:
    """Make the RPM of a Debian package."""
    name = RENAMED.get(field(deb, "Package"), field(deb, "Package"))
    version, _, release = field(deb, "Version").rpartition(":")[2].partition("-")
    root = unpack(deb, name, overlays)
    spec = SPEC.format(
        name=name,
        version=re.sub(r"[^\w.+~]", "_", version),
        release=re.sub(r"[^\w.+~]", "_", release or "1") + ".el9",
        arch="noarch" if field(deb, "Architecture") == "all" else os.uname().machine,
        relations="\n".join(relations(deb, there)),
        files="\n".join(listed(root)),
        scripts=scripts(root, name),
    )
    build(spec, root, name)


def from_files(name: str, version: str, files: dict[str, Path], needs: str = "") -> None:
    """Make an RPM of files of this root."""
    root = WORK / "trees" / name
    for path, source in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, root / path)
    root.mkdir(parents=True, exist_ok=True)
    spec = SPEC.format(
        name=name, version=version, release="1.el9", arch=os.uname().machine, relations=needs,
        files="\n".join(listed(root)), scripts="",
    )  # fmt: skip
    build(spec, root, name)


def record_base() -> None:
    """Put what the root has already into rpm's database."""
    lines = [
        "Name: rocky-release", "Version: 9.6", "Release: 1.el9", "Summary: the base", "License: BSD",
        "BuildArch: noarch", "AutoReqProv: no",
        f"Provides: {PROVIDES}", "%description", ".", "%files",
    ]  # fmt: skip
    for name in BASE:
        lines += [f"%package -n {name}", "Summary: of the base"]
        lines += [f"%description -n {name}", ".", f"%files -n {name}"]
    file = WORK / "base.spec"
    file.write_text("\n".join(lines) + "\n")
    defines = ["--define", f"_topdir {WORK}/top", "--define", f"_rpmdir {WORK}/base"]
    run("rpmbuild", "-bb", "--quiet", *defines, str(file))
    run("rpm", "--install", "--justdb", "--nodeps", *map(str, (WORK / "base").rglob("*.rpm")))


def main(overlays: str, *packages: str) -> None:
    for folder in (WORK, REPOSITORY):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    debs = download(list(packages))
    there = {field(deb, "Package") for deb in debs}
    for deb in debs:
        convert(deb, there, Path(overlays))
    from_files("python3.11", "3.11", {"usr/bin/python3.11": Path("/usr/bin/python3.11")})
    from_files("docker-ce-cli", "1", {}, "Requires: docker-ce")
    from_files("epel-release", "9", {})  # what EPEL offers is in the same repository
    run("createrepo_c", "--quiet", str(REPOSITORY))
    record_base()
    for program in [*Path("/usr/bin").iterdir(), *Path("/usr/sbin").iterdir()]:
        with_debians_python(program)
    shutil.rmtree(WORK)


if __name__ == "__main__":
    main(*sys.argv[1:])
