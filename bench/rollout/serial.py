"""The cut-over of one host at a distance, beside a no-op of ansible with and without mitogen.

That is the time that each further host of a wave takes, as relays are cut over one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

import lab
from bench.deploy.__main__ import compare
from bench.deploy.stage import PACKAGES
from bench.deploy.tools import Target
from bench.rollback.figures import RELAY
from bench.rollback.operator import Operator, Timed
from lab.delaying import delaying
from lab.topology import DNS_AT
from tests.e2e.underway import Event

PEERS = ("ansible", "ansible + mitogen")
_PORTS = ((443, False), (80, False), (3478, True))  # of the relay, and whether it is UDP


@dataclass(frozen=True)
class CutOver:
    """Times in s: from the cut-over's begin to the host's confirmation, and the restart alone."""

    whole_s: float
    restart_s: float


def cut_overs(stage: lab.Lab, target: Target, *, rtt_s: float, folder: Path, runs: int) -> list[CutOver]:
    """Roll out so many releases to the host, with all of its ports at a distance."""
    operator = Operator.of(stage, folder)
    with _far(stage, target, rtt_s):
        operator.run("deploy")
        return [_cut_over(operator) for _ in range(runs)]


def peers_s(stage: lab.Lab, target: Target, *, rtt_s: float, noops: int) -> dict[str, float]:
    """Return the best time of each peer's no-op of 26 resources (bench.deploy), in s."""
    install = f"apt-get -qq update && apt-get -qq install --no-install-recommends {' '.join(PACKAGES)}"
    stage.run_in("hk1", ["sh", "-c", f"export DEBIAN_FRONTEND=noninteractive; {install}"], timeout_s=300)
    found = compare(target, rtt_s=rtt_s, rounds=1, noops=noops, tools=PEERS)
    return {tool: min(run.wall_s for run in kinds["no-op"]) for tool, kinds in found.items()}


def _cut_over(operator: Operator) -> CutOver:
    operator.make_release()
    rollout = operator.run("rollout")
    [began], [ended] = (_moments(rollout, state) for state in ("cutting", "confirmed"))
    show = ["systemctl", "show", "--value", "--property"]
    left, entered = (
        int(operator.stage.run_in("hk1", [*show, f"Active{word}TimestampMonotonic", RELAY]).stdout) / 1e6
        for word in ("Exit", "Enter")
    )
    return CutOver(ended - began, entered - left)


def _moments(rollout: Timed, state: str) -> list[float]:
    def is_it(event: Event) -> bool:
        return event["event"] == "host_state" and event["state"] == state

    return rollout.moments("hk1", is_it)


@contextmanager
def _far(stage: lab.Lab, target: Target, rtt_s: float) -> Iterator[None]:
    """Put a delaying proxy before sshd and each port of the relay, at the controller's address."""
    here = str(stage.topology.address(DNS_AT))
    before = stage.site_file.read_text(), stage.known_hosts.read_text()
    with ExitStack() as stack:
        for port, udp in _PORTS:
            stack.enter_context(
                delaying((target.address, port), rtt_s=rtt_s, listen=(here, port), udp=udp)
            )
        ssh = stack.enter_context(delaying((target.address, 22), rtt_s=rtt_s))
        stack.callback(stage.known_hosts.write_text, before[1])
        stack.callback(stage.site_file.write_text, before[0])
        stack.callback(stage.dns.restore)
        line = next(line for line in before[1].splitlines() if target.address in line.split()[0].split(","))
        pinned = f"[127.0.0.1]:{ssh.port} {line.split(maxsplit=1)[1]}\n"
        stage.known_hosts.write_text(before[1] + pinned)
        site = yaml.safe_load(before[0])
        host = site["hosts"]["hk1"]
        host |= {"ipv4": here, "ssh": {"address": "127.0.0.1", "port": ssh.port}}
        host.pop("ipv6", None)
        site["rollout"] = {"soak_s": 0}
        stage.site_file.write_text(yaml.safe_dump(site, sort_keys=False))
        stage.dns.point(host["domain"], stage.topology.address(DNS_AT))
        yield
