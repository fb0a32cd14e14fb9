"""A host of the lab: a bare Debian with systemd and sshd, booted by systemd-nspawn in its own
network namespace."""

from __future__ import annotations

import os
import secrets
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import cgroup, debian, netns
from lab.errors import LabError
from lab.files import write_tree
from lab.machine import Machine
from lab.process import execute, kill, run, wait_for
from lab.topology import DNS_AT, DOMAIN, HostSpec

BOOT_TIMEOUT_S = 60
PASSWORD_FILE = f"{debian.ADMIN}.password"
# Docker makes its own control groups; systemd-nspawn mounts those of cgroup v1 read-only.
WRITABLE_CGROUPS = """[Unit]
Description=Writable control groups, as on a real machine
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'mount -o remount,rw /sys/fs/cgroup; \\
  for c in /sys/fs/cgroup/*/; do mount -o remount,bind,rw "$c"; done; true'
"""
# Only this host sees these mounts, and they end with it. A machine without systemd has a plain
# folder at /run/systemd, which systemd-nspawn refuses. It ends with status 133 when the host wants
# to reboot.
LAUNCH = """for group in $1; do echo $$ >"$group/cgroup.procs" || exit; done
[ -d /run/systemd/system ] || mount -t tmpfs -o mode=0755 tmpfs /run/systemd || exit
mount -t overlay -o lowerdir=base,upperdir=upper,workdir=work,redirect_dir=on overlay root || exit
mount --bind var root/var || exit
shift
status=133
while [ $status = 133 ]; do "$@"; status=$?; done
exit $status
"""


@dataclass(frozen=True)
class LabHost(Machine):
    """One host.

    `folder` holds the parts of its file system, `keys` the lab's ssh key and the one password.
    """

    spec: HostSpec
    keys: Path

    @property
    def init(self) -> int | None:
        """The pid of its process 1, None when it is down."""
        return self.processes.container(self.name)

    @property
    def root(self) -> Path:
        """Its file system as seen from here, while it is up. Raises LabError."""
        return Path(f"/proc/{self._init_or_error()}/root")

    @property
    def known_hosts_line(self) -> str:
        """Its line of OpenSSH's known_hosts."""
        names = [self.spec.domain, str(self.topology.ipv4(self.name))]
        if six := self.topology.ipv6(self.name):
            names.append(str(six))
        kind, key = self._host_key.with_suffix(".pub").read_text().split()[:2]
        return f"{','.join(names)} {kind} {key}"

    def prepare(self, base: Path, *, cache: Path, ca: Path) -> None:
        """Lay out its file system: the base, its name, its keys, its logins, `ca` among its trusted
        roots."""
        debian.lay_out(base, self.folder, suite=self.spec.suite, cache=cache, ca=ca)
        domain, authorized = self.spec.domain, (self.keys / "id_ed25519.pub").read_text()
        self.lay(
            {
                "etc/hostname": f"{self.name}\n",
                "etc/hosts": (
                    f"127.0.0.1 localhost\n127.0.1.1 {domain} {self.name}\n"
                    "::1 localhost ip6-localhost ip6-loopback\n"
                ),
                "etc/resolv.conf": f"search {DOMAIN}\nnameserver {self.topology.address(DNS_AT)}\n",
                "etc/machine-id": f"{uuid.uuid4().hex}\n",
                "etc/systemd/system/lab-cgroups.service": WRITABLE_CGROUPS,
                "etc/systemd/system/sysinit.target.d/lab.conf": "[Unit]\nWants=lab-cgroups.service\n",
            }
        )
        homes = ("root", f"home/{debian.ADMIN}", f"home/{debian.ADMIN_WITHOUT_PASSWORD}")
        self.lay({f"{home}/.ssh/authorized_keys": authorized for home in homes}, mode=0o600)
        self._host_key.parent.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", domain, "-f", str(self._host_key)])

    def lay(self, files: Mapping[str, str | bytes], *, mode: int = 0o644) -> None:
        """Put files into the file system of a host that has not booted yet.

        Paths are relative to its root, and not below var.
        """
        write_tree(self.folder / "upper", files, mode=mode, like=self.folder / "base")

    def boot(self) -> None:
        """Start it and wait until its services are up.

        Raises LabError with the last lines of its console.
        """
        namespace = netns.add_host(self.topology, self.spec)
        groups = cgroup.make(self.topology, self.name)
        nspawn = [
            "systemd-nspawn", "--quiet", f"--directory={self.folder / 'root'}", f"--machine={namespace}",
            f"--hostname={self.name}", "--register=no",
            f"--network-namespace-path={netns.FOLDER / namespace}", "--resolv-conf=off", "--timezone=off",
            "--link-journal=no", "--console=pipe", "--capability=all", "--system-call-filter=@keyring bpf",
            *([] if cgroup.systemd_is_init() else ["--keep-unit"]), "--boot",
        ]  # fmt: skip
        launch = [*netns.IN_OWN_MOUNTS, "sh", "-c", LAUNCH, "sh", " ".join(map(str, groups))]
        # Its own /proc/sys/net is writable, as on a real machine; the rest of /proc/sys is this
        # machine's.
        settings = {**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
        self.processes.start(self.name, [*launch, *nspawn], environment=settings, cwd=self.folder)
        wait_for(
            self.is_up,
            timeout_s=BOOT_TIMEOUT_S,
            what=f"{self.name} did not boot",
            why=lambda: self.processes.tail(self.name),
        )
        self.run(["chpasswd"], input=f"{debian.ADMIN}:{(self.keys / PASSWORD_FILE).read_text()}")

    def stop(self) -> None:
        """Kill it without a shutdown. Its root file system stays."""
        if (init := self.init) is not None:
            kill(init)
        self.processes.stop(self.name)

    def run(
        self, argv: Sequence[str], *, input: str | None = None, timeout_s: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host as root, not over ssh.

        Raises LabError when the host is down, and with `check` when the command fails.
        """
        words, what = [*self.enter(), *argv], f"{argv[0]} failed on {self.name}"
        return execute(words, input=input, timeout_s=timeout_s, check=check, what=what)

    def enter(self) -> list[str]:
        """Return an argv prefix that runs a command on the host as root.

        Raises LabError when it is down.
        """
        return _enter(self._init_or_error())

    def write(self, files: Mapping[str, str | bytes], *, mode: int = 0o644) -> None:
        """Write files on the host, which is up; paths are relative to its root."""
        write_tree(self.root, files, mode=mode)

    @property
    def _host_key(self) -> Path:
        return self.folder / "upper/etc/ssh/ssh_host_ed25519_key"

    def _init_or_error(self) -> int:
        if (init := self.init) is None:
            raise LabError(f"{self.name} is not up", why=self.processes.tail(self.name), next="invoke lab.up")
        return init

    def is_up(self) -> bool:
        """Whether its service manager has finished booting.

        A failed unit is reported by the tests, not by the lab.
        """
        if (init := self.init) is None:
            # while it starts, process 1 may be there once and gone the next moment
            return False
        query = [*_enter(init), "systemctl", "is-system-running", "--wait"]
        return execute(
            query, check=False, what=f"{self.name} does not say whether it is up"
        ).stdout.strip() in {"running", "degraded"}


def _enter(init: int) -> list[str]:
    """Return an argv prefix that runs a command as root in the container of this process 1."""
    clean = ["env", "-i", "HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=xterm-256color"]
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return ["nsenter", f"--target={init}", "--all", *clean, path]


def make_keys(folder: Path) -> None:
    """Make the lab's ssh key, and the password of the login that has one, unless they are there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / "id_ed25519").exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(folder / "id_ed25519")])
        password = folder / PASSWORD_FILE
        password.touch(mode=0o600)
        password.write_text(f"{secrets.token_urlsafe(12)}\n")
