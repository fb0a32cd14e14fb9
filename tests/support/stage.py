"""The root of a stage: process 1 of its own namespaces, over a copy-on-write copy of this machine.

Run by `tests.support.sshd`, as root. Everything inside (`/etc`, users, packages, network, kernel
settings) may be changed at will and is gone with this process, however it ends. It speaks with its
maker over file descriptor 0: one JSON line in (the settings), `ready` out, and it ends when that
closes. File descriptor 1 is the listening socket, made outside: it stays in the machine's network
while everything else here is in an empty one.
"""

import contextlib
import json
import os
import select
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def enter_copy() -> None:
    """Make a copy of this machine's root, written to memory only, our root.

    Kernel settings become read-only, except those of this network namespace.
    """
    base = Path("/mnt")  # covered in our mount namespace only
    mount("-t", "tmpfs", "stage", str(base))
    root = base / "root"
    root.mkdir()
    for number, disk in enumerate(("/", *other_disks())):
        upper, work = base / f"upper{number}", base / f"work{number}"
        upper.mkdir()
        work.mkdir()
        where = root / disk.lstrip("/")
        mount("-t", "overlay", "stage", "-o", f"lowerdir={disk},upperdir={upper},workdir={work}", str(where))
        # a new upper layer has the mode of its own top
        where.chmod(Path(disk).stat().st_mode & 0o7777)
    for name, kind in (("dev", "tmpfs"), ("run", "tmpfs"), ("tmp", "tmpfs"), ("proc", "proc")):
        mount("-t", kind, "stage", str(root / name), *(["-o", "mode=1777"] if name == "tmp" else []))
    mount("--bind", str(root / "proc/sys"), str(root / "proc/sys"))
    mount("--bind", str(root / "proc/sys/net"), str(root / "proc/sys/net"))
    mount("-o", "remount,bind,ro", str(root / "proc/sys"))
    for name, number in DEVICES.items():
        os.mknod(root / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(*number))
        (root / "dev" / name).chmod(0o666)
    (root / "dev/pts").mkdir()
    mount("-t", "devpts", "stage", str(root / "dev/pts"), "-o", "newinstance,ptmxmode=0666,mode=620,gid=5")
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    (root / "dev/shm").mkdir(mode=0o1777)
    (root / "dev/fd").symlink_to("/proc/self/fd")
    os.chroot(root)
    os.chdir("/")
    socket.sethostname("stage")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def other_disks() -> list[str]:
    """Return where further file systems on disks are mounted, such as /usr or /var: an overlay does
    not look into them."""
    mounts = [line.split()[:2] for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = [
        where.encode().decode("unicode_escape")
        for device, where in mounts
        if device.startswith("/dev/") and where != "/"
    ]
    return sorted({where for where in found if Path(where).is_dir()})


def append(path: str, line: str) -> None:
    with Path(path).open("a") as file:
        file.write(line + "\n")


def add_account(number: int, account: dict) -> None:
    """Write one login into the password files, with its home, key, start-up noise and sudo rule."""
    name, home = account["name"], Path("/root" if account["name"] == "root" else f"/home/{account['name']}")
    hashed = "*"
    if account["password"]:
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"],
            input=account["password"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    uid = 0 if name == "root" else number
    for path in ("/etc/passwd", "/etc/shadow", "/etc/group"):
        kept = [line for line in Path(path).read_text().splitlines() if not line.startswith(f"{name}:")]
        Path(path).write_text("\n".join(kept) + "\n")
    append("/etc/passwd", f"{name}:x:{uid}:{uid}::{home}:{account['shell']}")
    append("/etc/shadow", f"{name}:{hashed}:19000:0:99999:7:::")
    append("/etc/group", f"{name}:x:{uid}:")
    if name == "root":  # an empty one instead of the machine's own, which also hides any keys there
        mount("-t", "tmpfs", "-o", "mode=700", "stage", str(home))
    shutil.rmtree(home, ignore_errors=True)
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    if account["key"]:
        (home / ".ssh/authorized_keys").write_text(account["authorized_key"])
    (home / ".bashrc").write_text(account["bashrc"])
    for path in (home, *home.rglob("*")):
        os.chown(path, uid, uid)
    rule = {"free": "ALL=(ALL:ALL) NOPASSWD: ALL", "password": "ALL=(ALL:ALL) ALL", "none": ""}[
        account["sudo"]
    ]
    if rule:
        append("/etc/sudoers", f"{name} {rule}")


def set_up(wanted: dict) -> None:
    """Write accounts, files and sshd's own files, as the maker wants them."""
    Path("/etc/sudoers").write_text("Defaults env_reset\n")
    Path("/etc/sudoers").chmod(0o440)
    append("/etc/hosts", "127.0.1.1 stage")
    for number, account in enumerate(wanted["accounts"], start=2001):
        add_account(number, account)
    for name, content in wanted["files"].items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(content)
        path.chmod(0o755 if content.startswith("#!") else 0o644)
    for name in wanted["without"]:
        path = Path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    Path("/run/sshd").mkdir(mode=0o755)
    Path("/run/stage").mkdir(mode=0o700)
    for name in ("host_key", "sshd_config"):
        path = Path("/run/stage", name)
        path.write_text(wanted[name])
        path.chmod(0o600)


def serve(control: socket.socket, listener: socket.socket, sshd: str) -> None:
    """Start one `sshd -i` for each connection, as inetd does, and reap those that ended, until the
    maker closes its end."""
    argv = [sshd, "-i", "-e", "-f", "/run/stage/sshd_config"]
    while True:
        readable, _, _ = select.select([control, listener], [], [], 0.5)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        if control in readable:
            return
        if listener in readable:
            connection, _ = listener.accept()
            fd = connection.fileno()
            actions = [(os.POSIX_SPAWN_DUP2, fd, 0), (os.POSIX_SPAWN_DUP2, fd, 1)]
            os.posix_spawn(sshd, argv, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, file_actions=actions)
            connection.close()


def main() -> None:
    control, listener = socket.socket(fileno=0), socket.socket(fileno=1)
    with control.makefile("r") as lines:
        wanted = json.loads(lines.readline())
    enter_copy()
    set_up(wanted)
    control.sendall(b"ready\n")
    serve(control, listener, wanted["sshd"])
    os._exit(0)  # process 1 of its namespace: the kernel kills the rest


if __name__ == "__main__":
    sys.exit(main())
