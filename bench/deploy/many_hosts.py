"""Many hosts on one real host: an sshd for each, with a lock and a state folder of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.deploy.tools import Target, behind
from lab.delay import ProxyCounts
from lab.delaying import Delaying, delaying

FIRST_PORT = 3001
FOLDER = "/var/lib/derpbench-hosts"
# Each begins with what the host itself keeps.
START = """
set -e
mkdir -p /run/sshd /var/lib/derpfleet /run/derpfleet
for port in $(seq {first} {last}); do
  mkdir -p {folder}/$port/lock
  cp -a /var/lib/derpfleet {folder}/$port/state
  systemd-run --quiet --unit=derpbench-sshd-$port --property=PrivateMounts=yes \\
    --property="BindPaths={folder}/$port/state:/var/lib/derpfleet {folder}/$port/lock:/run/derpfleet" \\
    /usr/sbin/sshd -D -o PidFile=none -p $port
done
for port in $(seq {first} {last}); do
  for try in $(seq 100); do ss -Hltn "sport = :$port" | grep -q . && continue 2; sleep 0.1; done
  echo "no sshd listens on port $port" >&2; exit 1
done
"""
STOP = "systemctl stop 'derpbench-sshd-*'; rm -rf {folder}\n"


@dataclass(frozen=True)
class ManyHosts:
    """The hosts as seen through a delaying proxy each."""

    logins: list[Target]
    proxies: list[Delaying]

    def reset(self) -> None:
        """Start all counts at zero again."""
        for proxy in self.proxies:
            proxy.counts(reset=True)

    def counts(self) -> list[ProxyCounts]:
        """Return the traffic of each host."""
        return [proxy.counts() for proxy in self.proxies]


def ports_of(number: int) -> range:
    """Return the ports of so many hosts."""
    return range(FIRST_PORT, FIRST_PORT + number)


@contextmanager
def many_hosts(target: Target, number: int, *, rtt_s: float, folder: Path) -> Iterator[ManyHosts]:
    """Run so many sshd on the target, and end them with the block.

    `folder`: where their keys are pinned.
    """
    ports = ports_of(number)
    with ExitStack() as stack:
        stack.callback(_sh, target, STOP.format(folder=FOLDER), check=False)
        _sh(target, START.format(first=ports[0], last=ports[-1], folder=FOLDER))
        proxies = [stack.enter_context(delaying((target.address, port), rtt_s=rtt_s)) for port in ports]
        logins = [behind(target, proxy.port, folder / f"known_hosts-{proxy.port}") for proxy in proxies]
        yield ManyHosts(logins, proxies)


def _sh(target: Target, script: str, *, check: bool = True) -> None:
    subprocess.run([*target.ssh(), "sh"], input=script, text=True, check=check)
