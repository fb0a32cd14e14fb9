"""A content that a broken connection cut off: the next run sends only the rest."""

from __future__ import annotations

import fcntl
import random
from pathlib import Path
from typing import Any

import pytest

from engine.login import Login, Unreachable
from engine.plan import sha256
from engine.resource import File
from lab.delay import ProxyCounts
from lab.delaying import Delaying, delaying
from tests.engine.conftest import Run, login_to, renamed
from tests.support.sshd import Sshd

SIZE = 10_000_000
MORE = 200_000  # bytes of a login, the agent and a plan, at most


@pytest.mark.parametrize("beginning", ["as it came", "damaged", "longer than the content"])
def test_a_content_that_was_cut_off_continues_where_it_stopped(
    sshd: Sshd, run: Run, tmp_path: Path, beginning: str
) -> None:
    incoming = sshd.root / "var/lib/derpfleet/incoming"
    with delaying((sshd.address, sshd.port), rtt_s=0.01) as proxy:
        login = login_to(sshd, port=proxy.port, known_hosts=renamed(sshd, proxy.port))
        cut = wanted(tmp_path, f"cut-{beginning}")
        cut_off(login, run, proxy, cut)
        with (sshd.root / "run/derpfleet/lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # its agent has ended then
        (part,) = incoming.iterdir()
        there = part.stat().st_size
        assert part.name == f"{sha256(cut.content)}.part" and SIZE / 2 < there < SIZE
        if beginning != "as it came":
            part.write_bytes(part.read_bytes()[:-1] + {"damaged": b"x"}.get(beginning, bytes(SIZE)))
        continued = counted(login, run, proxy, cut)
    assert (sshd.root / cut.path.lstrip("/")).read_bytes() == Path(str(cut.content)).read_bytes()
    rest = SIZE - there if beginning == "as it came" else SIZE
    assert rest <= continued.bytes_up < rest + MORE
    assert list(incoming.iterdir()) == []


def wanted(folder: Path, name: str) -> File:
    """Return a large file of the host, whose content no other one has."""
    content = folder / name
    content.write_bytes(random.randbytes(SIZE))
    return File(path=f"/var/tmp/{name}", content=content)


def cut_off(login: Login, run: Run, proxy: Delaying, file: File) -> None:
    """Send the file, and cut the connection at nine tenths."""

    def cut(event: dict[str, Any]) -> None:
        if event["event"] == "sending" and event["sent"] > 0.9 * SIZE:
            proxy.cut()

    with pytest.raises(Unreachable, match="the connection was lost"):
        run(login, [file], on_event=cut)


def counted(login: Login, run: Run, proxy: Delaying, file: File) -> ProxyCounts:
    """Return the traffic of a run that makes the file."""
    proxy.counts(reset=True)
    assert run(login, [file]).counts["changed"] == 1
    return proxy.counts()
