"""A relay that runs out of something stays one: descriptors, memory. Real processes."""

from __future__ import annotations

import re
import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.relay import servers
from relay import client as derp
from relay.sweep import PERIOD_S, ResidentMemory
from tests.relay.live import HungUp, Peer, eventually, relay


@pytest.mark.parametrize(
    "flags", [("-memory-ceiling", "4096"), ("-workers", "2")], ids=["ceiling", "workers"]
)
def test_without_a_descriptor_left_it_goes_on(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with relay(tmp_path, *flags, tls=False) as live:
        with live.connect() as alice, live.connect() as bob, ExitStack() as stack:
            pids = [
                live.pid,
                *map(int, Path(f"/proc/{live.pid}/task/{live.pid}/children").read_text().split()),
            ]
            usual = resource.prlimit(live.pid, resource.RLIMIT_NOFILE)
            for pid in pids:
                highest = max(int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir())
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 4, usual[1]))
            for _ in range(20):
                stack.enter_context(live.tcp())
            time.sleep(3 * PERIOD_S)
            alice.send(bob.key, b"there already")
            assert bob.expect(derp.Received).packet == b"there already"
            for pid in pids:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        live.assert_undisturbed()


def test_above_the_memory_ceiling_only_new_clients_are_refused(tmp_path: Path) -> None:
    """Not the operator, who wants to see it; not the other workers; not the relay's look at its own
    front.
    """
    port = servers.free_port(socket.SOCK_STREAM)
    flags = ["-memory-ceiling", "1", "-workers", "2", "-front-check", f"127.0.0.1:{port}"]
    with relay(tmp_path, *flags, port=port) as live:
        with live.open() as sock, pytest.raises(HungUp):
            Peer(sock).login()
        eventually(lambda: live.metrics().get('relay_refusals{reason="memory_ceiling"}') == 1)
        eventually(lambda: live.metrics()["relay_front_ok"] == 1)
        assert live.log().count("mesh link up") == 2
        assert not re.search("Traceback|exception=", live.log())


def test_resident_memory_is_what_the_kernel_says() -> None:
    kib = next(
        int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    )
    assert ResidentMemory().read() == pytest.approx(kib * 1024, rel=0.1)
