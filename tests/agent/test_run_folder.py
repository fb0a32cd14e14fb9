"""Of two runs on a host one has the lock, also where the other takes its folder away just then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FILES = Path(__file__).parent.parent.parent / "files"
# Between the opening of the lock and its lock, or of the folder and what is made there, the first
# run ends, and takes all away. Prints who has the lock each time, and what is left.
PLAY = """
import fcntl, json, os, sys
from agent import run_folder
moment, root = sys.argv[1:]
first, second = run_folder.RunFolder(root), run_folder.RunFolder(root)
flock, makedirs, left = fcntl.flock, os.makedirs, []
def end():
    if not left:
        left.append(True)
        first._leave()
        [lock.close() for lock in first._locks]
first.lock("lock", {"who": "ann"})
busy = second.lock("lock", {"who": "bob"})
def flock_later(*words):
    end()
    return flock(*words)
def makedirs_before(*words, **more):
    makedirs(*words, **more)
    end()
if moment == "flock":
    fcntl.flock = flock_later
else:
    os.makedirs = makedirs_before
lock, holder = second.lock("lock", {"who": "bob"})
third = run_folder.RunFolder(root).lock("lock", {"who": "eve"})
with second.scratch() as scratch:
    there = os.path.isdir(scratch)
print(json.dumps([busy[1]["who"], holder, third[1]["who"], there, os.listdir(root + "/run")]))
"""


@pytest.mark.parametrize("moment", ["flock", "makedirs"])
def test_a_folder_that_goes_meanwhile_is_made_again(moment: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    argv = [sys.executable, "-B", "-c", PLAY, moment, str(tmp_path)]
    done = subprocess.run(argv, cwd=FILES, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout) == ["ann", None, "bob", True, []]


FULL = """
import errno, json, os, sys
from agent import run_folder
run = run_folder.RunFolder(sys.argv[1])
run.lock("lock", {"who": "ann"})
def mkdir(*words):
    raise OSError(errno.ENOSPC, "no room")
run_folder.os.mkdir = mkdir
try:
    with run.scratch():
        pass
except OSError as error:
    print(json.dumps([error.errno == errno.ENOSPC, os.listdir(sys.argv[1] + "/run")]))
"""


def test_nothing_is_left_where_there_is_no_room_for_a_folder_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    argv = [sys.executable, "-B", "-c", FULL, str(tmp_path)]
    done = subprocess.run(argv, cwd=FILES, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout) == [True, []]
