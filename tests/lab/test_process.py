from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.process import MARK, Processes, run, wait_for

SLEEP = ["sleep", "60"]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    of_the_lab = Processes(tmp_path, tmp_path / "log")
    yield of_the_lab
    of_the_lab.stop_all()


def gone(pid: int) -> bool:
    """Whether it has ended; it may still be a zombie that its parent has not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_process_is_found_by_its_name_and_only_by_it(processes: Processes) -> None:
    pid = processes.start("one", SLEEP)
    assert processes.pid("one") == pid
    assert processes.pid("on") is None
    assert processes.pid("one1") is None
    assert processes.names() == {"one"}
    processes.stop("one")
    assert gone(pid)
    assert processes.names() == set()


def test_a_second_of_that_name_takes_the_place_of_the_first(processes: Processes) -> None:
    first = processes.start("one", SLEEP)
    second = processes.start("one", SLEEP)
    assert gone(first)
    assert processes.pid("one") == second


def test_a_lab_touches_nothing_of_another_whose_folder_begins_alike(
    processes: Processes, tmp_path: Path
) -> None:
    other = Processes(tmp_path.with_name(tmp_path.name + "0"), tmp_path / "other")
    try:
        theirs, ours = other.start("one", SLEEP), processes.start("one", SLEEP)
        processes.stop_all()
        assert gone(ours)
        assert not gone(theirs)
        assert other.pid("one") == theirs
    finally:
        other.stop_all()


def test_children_and_processes_that_ignore_sigterm_end_too(processes: Processes) -> None:
    pid = processes.start("stubborn", ["sh", "-c", "trap '' TERM; sleep 60 & while :; do sleep 1; done"])
    child = wait_for(
        lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text().split(), timeout_s=5, what="no child"
    )
    processes.stop("stubborn", grace_s=0.2)
    assert gone(pid)
    assert all(gone(int(number)) for number in child)


def test_a_process_that_ends_before_it_is_seen_is_an_error_with_its_own_words(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.process.START_TIMEOUT_S", 1.5)
    monkeypatch.setattr(processes, "pid", lambda _: None)
    with pytest.raises(LabError) as caught:
        processes.start("brief", ["sh", "-c", "echo no such luck >&2; exit 3"])
    assert "no such luck" in caught.value.why


def test_output_is_kept_and_the_environment_is_the_callers(processes: Processes) -> None:
    processes.start(
        "talker", ["sh", "-c", "env; sleep 60"], environment={"PATH": os.environ["PATH"], "WORD": "hello"}
    )
    wait_for(lambda: "hello" in processes.tail("talker"), timeout_s=5, what="no output")
    names = {line.partition("=")[0] for line in processes.tail("talker").splitlines()}
    assert names <= {"PATH", "WORD", MARK, "PWD", "SHLVL", "_", "OLDPWD"}


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(LabError, match="only words"):
        run(["sh", "-c", "echo only words >&2; exit 1"])
    with pytest.raises(LabError, match="no-such-program-here"):
        run(["no-such-program-here"])
    with pytest.raises(LabError, match="did not end within"):
        run(SLEEP, timeout_s=0.1)
    assert run(["cat"], input="through") == "through"


def test_waiting_ends(processes: Processes) -> None:
    assert wait_for(lambda: "now", timeout_s=0, what="never") == "now"
    with pytest.raises(LabError, match=r"the thing did not come; not within 0\.05 s"):
        wait_for(lambda: None, timeout_s=0.05, what="the thing did not come")


def test_the_mark_is_no_secret_and_survives_exec(processes: Processes, tmp_path: Path) -> None:
    pid = processes.start("chain", ["sh", "-c", "exec sleep 60"])
    assert f"{MARK}={tmp_path}#chain".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert subprocess.run(
        ["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=True
    ).stdout.strip() in {
        "sh",
        "sleep",
    }
