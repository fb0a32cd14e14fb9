"""A host of the lab: a bare Debian with systemd and sshd, booted by systemd-nspawn in a network namespace of its own."""

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
from lab.process import Processes, execute, kill, run, wait_for
from lab.topology import DNS_AT, DOMAIN, HostSpec, Topology

BOOT_TIMEOUT_S = 60
PASSWORD_FILE = f"{debian.ADMIN}.password"
# Docker makes control groups of its own; systemd-nspawn mounts those of cgroup v1 read-only.
WRITABLE_CGROUPS = """[Unit]
Description=Writable control groups, as on a machine of one's own
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'mount -o remount,rw /sys/fs/cgroup; for c in /sys/fs/cgroup/*/; do mount -o remount,bind,rw "$c"; done; true'
"""
# What is mounted here is seen by this host alone and goes with it. A machine without systemd has a plain folder at /run/systemd,
# which systemd-nspawn refuses. With status 133 it tells that the host wants to reboot.
LAUNCH = """for group in $1; do echo $$ >"$group/cgroup.procs" || exit; done
[ -d /run/systemd/system ] || mount -t tmpfs -o mode=0755 tmpfs /run/systemd || exit
mount -t overlay -o lowerdir=base,upperdir=upper,workdir=work,redirect_dir=on overlay root && mount --bind var root/var || exit
shift
status=133
while [ $status = 133 ]; do "$@"; status=$?; done
exit $status
"""


@dataclass(frozen=True)
class Host:
    """One host. `folder` holds its file system's parts, `keys` the lab's ssh key and the password of the login that has one."""

    spec: HostSpec
    topology: Topology
    processes: Processes
    folder: Path
    keys: Path

    @property
    def name(self) -> str:
        """Its name in the site file."""
        return self.spec.name

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
        """Lay out its file system: the base, its name, its keys, its logins, `ca` among what it trusts."""
        debian.lay_out(base, self.folder, suite=self.spec.suite, cache=cache, ca=ca)
        domain, authorized = self.spec.domain, (self.keys / "id_ed25519.pub").read_text()
        self.lay(
            {
                "etc/hostname": f"{self.name}\n",
                "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {domain} {self.name}\n::1 localhost ip6-localhost ip6-loopback\n",
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
        """Put files into the file system of a host that has not booted yet; paths are relative to its root, and not below var."""
        write_tree(self.folder / "upper", files, mode=mode, like=self.folder / "base")

    def boot(self) -> None:
        """Start it and wait until its services are up. Raises LabError with the last lines of its console."""
        namespace = netns.add_host(self.topology, self.spec)
        groups = cgroup.make(self.topology, self.name)
        nspawn = [
            "systemd-nspawn", "--quiet", f"--directory={self.folder / 'root'}", f"--machine={namespace}", f"--hostname={self.name}",
            "--register=no", f"--network-namespace-path={netns.FOLDER / namespace}", "--resolv-conf=off", "--timezone=off",
            "--link-journal=no", "--console=pipe", "--capability=all", "--system-call-filter=@keyring bpf",
            *([] if cgroup.systemd_is_init() else ["--keep-unit"]), "--boot",
        ]  # fmt: skip
        launch = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", LAUNCH, "sh", " ".join(map(str, groups))]
        # Its own /proc/sys/net is writable, as on a machine of its own; the rest of /proc/sys is the machine's.
        settings = {**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
        self.processes.start(self.name, [*launch, *nspawn], environment=settings, cwd=self.folder)
        wait_for(self.is_up, timeout_s=BOOT_TIMEOUT_S, what=f"{self.name} did not boot", why=lambda: self.processes.tail(self.name))
        self.run(["chpasswd"], input=f"{debian.ADMIN}:{(self.keys / PASSWORD_FILE).read_text()}")

    def stop(self) -> None:
        """Switch it off, as by its plug. Its root stays."""
        if (init := self.init) is not None:
            kill(init)
        self.processes.stop(self.name)

    def run(
        self, argv: Sequence[str], *, input: str | None = None, timeout_s: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host as root, not over ssh. Raises LabError when it is down, and with `check` when the command fails."""
        return execute([*self.enter(), *argv], input=input, timeout_s=timeout_s, check=check, what=f"{argv[0]} failed on {self.name}")

    def enter(self) -> list[str]:
        """An argv prefix that runs a command on the host as root. Raises LabError when it is down."""
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
        """Whether its service manager has done all that boot asks for. A unit that failed is told by the tests, not by the lab."""
        if (init := self.init) is None:  # while it starts, what was found once need not be found the next moment
            return False
        ask = [*_enter(init), "systemctl", "is-system-running", "--wait"]
        return execute(ask, check=False, what=f"{self.name} does not say whether it is up").stdout.strip() in {"running", "degraded"}


def _enter(init: int) -> list[str]:
    """An argv prefix that runs a command as root where this process 1 is."""
    clean = ["env", "-i", "HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=xterm-256color"]
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return ["nsenter", f"--target={init}", "--all", *clean, path]


def make_keys(folder: Path) -> None:
    """The lab's ssh key, and the password of the login that has one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / "id_ed25519").exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(folder / "id_ed25519")])
        password = folder / PASSWORD_FILE
        password.touch(mode=0o600)
        password.write_text(f"{secrets.token_urlsafe(12)}\n")
