"""Labs that are raised and removed: side by side, crashed, half-made, with their state lost.

Remains are searched in the machine, not in the lab's records.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lab
from inventory.checkout import CHECKOUT
from lab import lifecycle, netns
from lab.acme import Acme
from lab.process import MARK, wait_for
from lab.topology import lab_id

QUIET = {"progress": lambda _: None}


def left_of(root: Path) -> list[str]:
    """Return everything on this machine that belongs to the lab in this folder.

    It looks at namespaces, processes, control groups, mounts and files.
    """
    name = f"dfl-{lab_id(root)}"
    left = [f"namespace {n}" for n in netns.namespaces() if n.startswith(name)]
    for folder in Path("/proc").iterdir():
        try:
            if (
                folder.name.isdigit()
                and f"{MARK}={root.resolve()}#".encode() in (folder / "environ").read_bytes()
            ):
                left.append(f"process {folder.name} {(folder / 'comm').read_text().strip()}")
        except OSError:
            continue
    left += [f"group {path}" for path in Path("/sys/fs/cgroup").rglob(name)]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    left += [f"mount {line}" for line in mounts if name in line or str(root.resolve()) in line]
    return left + [f"file {path}" for path in (root.iterdir() if root.exists() else ())]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "lab"
    yield folder
    if os.geteuid() == 0:
        lab.down(folder)
        assert left_of(folder) == []


@pytest.mark.lab
def test_a_lab_leaves_nothing(root: Path) -> None:
    assert lab.status(root) == {"up": False, "parts": {}}
    stage = lab.up(root, only=["hk1", "site-a"], **QUIET)
    assert lab.status(root)["up"]
    assert any("namespace" in thing for thing in left_of(root))
    stage.run_in(
        "hk1",
        [
            "sh",
            "-c",
            "mkdir /tmp/m && mount -t tmpfs tmpfs /tmp/m && setsid --fork sleep 300 >/dev/null 2>&1",
        ],
    )
    lab.down(root)
    assert left_of(root) == []
    assert not root.exists()
    lab.down(root)


@pytest.mark.lab
def test_up_again_is_the_same_lab_with_the_missing_part(root: Path) -> None:
    first = lab.up(root, only=["sg1"], **QUIET)
    host = first.hosts["sg1"].init
    second = lab.up(root, only=["sg1", "acme"], **QUIET)
    assert second.hosts["sg1"].init == host
    assert set(second.alive()) == {"network", "sg1", "acme"}
    began = time.monotonic()
    lab.up(root, only=["sg1"], **QUIET)
    assert time.monotonic() - began < 2


@pytest.mark.lab
def test_a_lab_with_a_part_that_ended_is_made_anew(root: Path) -> None:
    stage = lab.up(root, only=["sg1", "acme"], **QUIET)
    host = stage.hosts["sg1"].init
    stage.processes.stop("acme")
    assert lab.status(root)["parts"]["acme"] == {"alive": False}
    assert not lab.status(root)["up"]
    stage = lab.up(root, only=["sg1"], **QUIET)
    assert stage.whole
    assert stage.hosts["sg1"].init not in (None, host)


@pytest.mark.lab
def test_two_labs_do_not_meet(root: Path, tmp_path: Path) -> None:
    other_root = tmp_path / "other"
    one = lab.up(root, only=["hk1"], **QUIET)
    try:
        other = lab.up(other_root, only=["hk1"], **QUIET)
        assert other.topology.ipv4("hk1") == one.topology.ipv4("hk1")
        one.run_in("hk1", ["touch", "/etc/of-the-one"])
        assert other.run_in("hk1", ["test", "-e", "/etc/of-the-one"], check=False).returncode == 1
        assert one.known_hosts.read_text() != other.known_hosts.read_text()
        # Their service managers have a tree of control groups each.
        other.run_in("hk1", ["systemctl", "stop", "ssh"])
        assert one.run_in("hk1", ["systemctl", "is-active", "ssh"]).stdout == "active\n"
    finally:
        lab.down(other_root)
    assert left_of(other_root) == []
    assert one.whole
    assert one.run_in("controller", ["getent", "ahostsv4", "hk1.derp.lab"]).returncode == 0


@pytest.mark.lab
@pytest.mark.parametrize("after_s", [0.45, 0.7, 1.2, 2.0])
def test_a_killed_up_blocks_no_later_one(root: Path, after_s: float) -> None:
    raising = subprocess.Popen(
        [sys.executable, "-m", "lab", "up", "hk1", "acme", "site-a"],
        cwd=CHECKOUT,
        env={**os.environ, "DERPFLEET_LAB": str(root)},
    )
    time.sleep(after_s)
    raising.kill()
    raising.wait()
    stage = lab.up(root, only=["acme"], **QUIET)
    assert stage.whole


@pytest.mark.lab
def test_down_finds_a_lab_without_a_record(root: Path) -> None:
    stage = lab.up(root, only=["hk1"], **QUIET)
    shutil.rmtree(root)
    assert stage.hosts["hk1"].init is not None
    lab.down(root)
    assert left_of(root) == []


@pytest.mark.lab
def test_an_up_that_fails_leaves_its_logs_and_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Acme) -> None:
        raise lab.LabError("no ACME today")

    monkeypatch.setattr(Acme, "start", fail)
    with pytest.raises(lab.LabError, match="no ACME today"):
        lab.up(root, only=["hk1", "acme"], **QUIET)
    assert {thing.rpartition("/")[2] for thing in left_of(root)} == {"log", "lock"}


@pytest.mark.lab
def test_an_interrupted_up_cleans_up(root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "lab", "up"],
        cwd=CHECKOUT,
        env={**os.environ, "DERPFLEET_LAB": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as raising:
        assert raising.stdout is not None
        raising.stdout.readline()
        raising.send_signal(signal.SIGINT)
        raising.stdout.read()
    assert raising.returncode != 0
    assert {thing.rpartition("/")[2] for thing in left_of(root)} == {"log", "lock"}


@pytest.mark.lab
def test_files_that_are_not_the_labs_stay(root: Path) -> None:
    root.mkdir()
    (root / "notes.txt").write_text("mine\n")
    lab.up(root, only=["acme"], **QUIET)
    lab.down(root)
    assert [path.name for path in root.iterdir()] == ["notes.txt"]
    (root / "notes.txt").unlink()


@pytest.mark.lab
def test_two_commands_at_once_do_not_tread_on_each_other(root: Path) -> None:
    with lifecycle.exclusive(root), pytest.raises(lab.LabError, match="by another command"):
        lab.down(root)


@pytest.mark.lab
def test_the_machine_outside_is_as_it_was(root: Path) -> None:
    def machine() -> list[str]:
        commands = (
            ["ip", "-brief", "link"],
            ["ip", "route", "show", "table", "all"],
            ["nft", "list", "ruleset"],
        )
        settings = [Path("/proc/sys/net/ipv4/ip_forward").read_text(), Path("/etc/resolv.conf").read_text()]
        return [
            subprocess.run(argv, capture_output=True, text=True, check=True).stdout for argv in commands
        ] + settings

    before = machine()
    lab.up(root, only=["hk1", "site-a"], **QUIET)
    assert machine() == before


def test_an_unknown_part_is_reported(tmp_path: Path) -> None:
    with pytest.raises(lab.LabError, match="the lab has no moon; any of hk1, sg1"):
        lab.up(tmp_path / "lab", only=["hk1", "moon"], **QUIET)


def test_missing_packages_are_named_with_the_command_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(lab.LabError, match="apt-get install mmdebstrap systemd-container iproute2") as caught:
        lab.up(tmp_path / "lab", **QUIET)
    assert "slirp4netns" in caught.value.why


def test_without_root_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for verb in (lambda: lab.up(tmp_path / "lab", **QUIET), lambda: lab.down(tmp_path / "lab")):
        with pytest.raises(lab.LabError, match="needs root"):
            verb()


def test_every_package_has_a_program_and_a_reason() -> None:
    rows = [
        line.split(maxsplit=2)
        for line in lifecycle.PACKAGES.read_text().splitlines()
        if not line.startswith("#")
    ]
    assert len(rows) > 5
    assert all(len(row) == 3 for row in rows)


@pytest.mark.lab
def test_a_client_that_cannot_log_in_says_why(root: Path) -> None:
    stage = lab.up(root, only=["site-a"], **QUIET)
    with pytest.raises(lab.LabError, match="hs1 is not up"):
        stage.clients["site-a"].join()
    wait_for(lambda: stage.clients["site-a"].running, timeout_s=1, what="tailscaled is not there")
