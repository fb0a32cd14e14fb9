"""The host of the comparisons: a separate lab with one relay host, and the program run again inside
that lab's network."""

from __future__ import annotations

import subprocess
import sys
import time

import lab
from bench.environment import CACHE

LAB = CACHE / "lab"
HOST = "hk1"
# The packages among the 26 resources, and the one that ansible's apt module needs on the host.
PACKAGES = ("ca-certificates", "curl", "nftables", "python3-apt")


def run_in_lab(module: str, arguments: list[str]) -> int:
    """Raise the lab, run `python -m MODULE` with the host's login as further arguments, take the
    lab down.

    Returns the exit status.
    """
    began = time.monotonic()
    stage = lab.up(
        LAB,
        only=[HOST],
        progress=lambda line: print(f"{time.monotonic() - began:6.1f} s  {line}", file=sys.stderr),
    )
    try:
        install = (
            "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install "
            f"--no-install-recommends {' '.join(PACKAGES)}"
        )
        stage.run_in(HOST, ["sh", "-c", install], timeout_s=300)
        login = [
            "--address",
            str(stage.topology.ipv4(HOST)),
            "--key",
            str(stage.ssh_key),
            "--known-hosts",
            str(stage.known_hosts),
        ]
        return subprocess.run(
            [*stage.enter, sys.executable, "-m", module, *login, *arguments], check=False
        ).returncode
    finally:
        lab.down(LAB)
