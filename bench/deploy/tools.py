"""The four tools: how each is installed, and the command that makes it converge one host."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.environment import environment
from inventory.checkout import CHECKOUT

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements"


@dataclass(frozen=True)
class Target:
    """A login as root on one host."""

    address: str
    port: int
    key: Path
    known_hosts: Path

    def ssh(self) -> list[str]:
        """Return the argv of the OpenSSH client, for steps that are not measured."""
        return ["ssh", "-p", str(self.port), *ssh_options(self), f"root@{self.address}"]


def add_login(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the host."""
    group = parser.add_argument_group(
        "host", "without --address: one in a separate lab, raised for this and taken down"
    )
    group.add_argument("--address")
    group.add_argument("--port", type=int, default=22)
    group.add_argument("--key", type=lambda text: Path(text).resolve())
    group.add_argument("--known-hosts", type=lambda text: Path(text).resolve())


def behind(target: Target, port: int, known_hosts: Path) -> Target:
    """Return the same host as seen through a proxy on this port of 127.0.0.1.

    Its key is pinned in the new file `known_hosts`.
    """
    lines = [line.split() for line in target.known_hosts.read_text().splitlines() if line.strip()]
    known_hosts.write_text(
        "".join(
            f"[127.0.0.1]:{port} {kind} {key}\n"
            for names, kind, key, *_ in lines
            if target.address in names.split(",")
        )
    )
    return Target("127.0.0.1", port, target.key, known_hosts)


@dataclass(frozen=True)
class Program:
    """A command to measure. `changes` reads the number of changed resources from its output."""

    argv: list[str]
    changes: Callable[[str], int]
    env: dict[str, str] = field(default_factory=dict)


def ssh_options(target: Target) -> list[str]:
    """Return options that pin the host's key and ignore the user's ssh configuration."""
    return [
        "-F", "none", "-i", str(target.key), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes",
        "-o", "LogLevel=ERROR", "-o", f"UserKnownHostsFile={target.known_hosts}",
        "-o", "GlobalKnownHostsFile=none",
    ]  # fmt: skip


def _program(tool: str, name: str) -> Path:
    """Return a program of one peer's environment."""
    return environment(REQUIREMENTS / f"{tool}.lock") / "bin" / name


def _ansible(target: Target, work: Path, contents: Path) -> Program:
    work.mkdir(parents=True, exist_ok=True)
    inventory = work / "hosts.ini"
    inventory.write_text(
        f"bench ansible_host={target.address} ansible_port={target.port} ansible_user=root files={contents}\n"
    )
    persist = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60s"]
    env = {
        "ANSIBLE_CONFIG": str(HERE / "peers/ansible.cfg"),
        "ANSIBLE_HOME": str(work / "home"),
        "ANSIBLE_SSH_ARGS": " ".join([*ssh_options(target), *persist]),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(work),
        "LC_ALL": "C.UTF-8",
    }
    argv = [
        str(_program("ansible", "ansible-playbook")),
        "-i",
        str(inventory),
        str(HERE / "peers/playbook.yml"),
    ]
    return Program(argv, _ansible_changes, env)


def _ansible_changes(output: str) -> int:
    # A line that is not there fails the benchmark.
    return int(re.search(r"changed=(\d+)", output)[1])  # type: ignore[index]


def _mitogen(target: Target, work: Path, contents: Path) -> Program:
    plain = _ansible(target, work, contents)
    ansible = environment(REQUIREMENTS / "ansible.lock")
    plugins = next(ansible.glob("lib/python3*/site-packages/ansible_mitogen/plugins/strategy"))
    return Program(
        plain.argv,
        plain.changes,
        plain.env | {"ANSIBLE_STRATEGY": "mitogen_linear", "ANSIBLE_STRATEGY_PLUGINS": str(plugins)},
    )


def _pyinfra(target: Target, work: Path, contents: Path) -> Program:
    work.mkdir(parents=True, exist_ok=True)
    data = {
        "ssh_hostname": target.address,
        "ssh_port": target.port,
        "ssh_user": "root",
        "ssh_key": str(target.key),
        "ssh_known_hosts_file": str(target.known_hosts),
        "ssh_strict_host_key_checking": "yes",
        "files": str(contents),
    }
    (work / "inventory.py").write_text(f"hosts = [('bench', {data!r})]\n")
    argv = [
        str(_program("pyinfra", "pyinfra")),
        "-y",
        str(work / "inventory.py"),
        str(HERE / "peers/pyinfra_deploy.py"),
    ]
    return Program(argv, _pyinfra_changes)


def _pyinfra_changes(output: str) -> int:
    """Read the last line of its table: operations, succeeded (that is, changed), failed, no change;
    "-" means none."""
    # A line that is not there fails the benchmark.
    _, succeeded, *_ = re.search(r"Grand total\s+(\S.*)", output)[1].split()  # type: ignore[index]
    return int(succeeded.replace("-", "0"))


def _ours(target: Target, work: Path, contents: Path) -> Program:
    argv = [
        sys.executable, "-m", "bench.deploy.ours", "--address", target.address, "--port", str(target.port),
        "--key", str(target.key), "--known-hosts", str(target.known_hosts), "--contents", str(contents),
        "--runs", str(work),
    ]  # fmt: skip
    return Program(
        argv,
        lambda output: json.loads(output.splitlines()[-1])["counts"]["changed"],
        {"PYTHONPATH": str(CHECKOUT)},
    )


TOOLS: dict[str, Callable[[Target, Path, Path], Program]] = {
    "derpfleet": _ours,
    "ansible": _ansible,
    "ansible + mitogen": _mitogen,
    "pyinfra": _pyinfra,
}


def versions() -> dict[str, str]:
    """Return the versions of the peers, as pinned, and those of this machine's programs."""
    found = {}
    for lock in REQUIREMENTS.glob("*.lock"):
        pins = dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.M))
        found |= {name: pins[name] for name in ("ansible-core", "mitogen", "pyinfra") if name in pins}
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.split(",")[0]
    return {**found, "ssh": ssh, "python": sys.version.split()[0], "cores": str(os.cpu_count())}
