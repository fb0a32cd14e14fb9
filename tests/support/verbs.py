"""A process of a lab that has imported all verbs, and forks one for each order.

Imports are half of a verb's CPU time, and a lab runs many verbs. Here they are paid once per lab.
Each verb is still a process of its own, which runs invoke's own program.

An order is one message on the socket that is file descriptor 0: a JSON object with `words`, which
are the verb's, and `environment`, which are its additional variables. With it go three file
descriptors: standard output, standard error, and a pipe for the exit code. A verb that dies without
one leaves the pipe empty. The process ends when the socket closes, or with its lab.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lab
from lab.process import MARK

CHECKOUT = Path(__file__).parent.parent.parent
INVOKE = Path(sys.executable).parent / "invoke"
_ORDER_MAX = 1 << 16
_running: dict[Path, tuple[subprocess.Popen[bytes], socket.socket]] = {}


def run(
    stage: lab.Lab, words: Sequence[str], *, timeout_s: float, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `invoke WORDS` in the lab's network; its output is text.

    Raises subprocess.TimeoutExpired; then the verb runs on until its lab is taken down.
    """
    order = json.dumps({"words": list(words), "environment": dict(environment)}).encode()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        ours, theirs = os.pipe()
        with os.fdopen(ours, "rb") as code:
            try:
                socket.send_fds(_socket(stage), [order], [out.fileno(), err.fileno(), theirs])
            finally:
                os.close(theirs)
            if not select.select([code], [], [], timeout_s)[0]:
                raise subprocess.TimeoutExpired(list(words), timeout_s)
            ended = int(code.read() or -signal.SIGKILL)
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(list(words), ended, out.read().decode(), err.read().decode())


def _socket(stage: lab.Lab) -> socket.socket:
    """Return the socket of the lab's process, which is started unless it runs."""
    if stage.root in _running:
        process, ours = _running[stage.root]
        if process.poll() is None:
            return ours
        ours.close()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    argv = [str(stage.root / "enter"), sys.executable, "-m", __name__]
    # the mark of the lab's own processes: it ends with them
    environment = {**os.environ, MARK: f"{stage.root}#verbs"}
    process = subprocess.Popen(argv, cwd=CHECKOUT, stdin=theirs, env=environment)
    theirs.close()
    _running[stage.root] = process, ours
    return ours


@atexit.register
def _end() -> None:
    for process, ours in _running.values():
        ours.close()
        process.wait(10)


def _import_all() -> None:
    """Import the verbs, which are a file or a folder each."""
    import fleet
    import tasks  # noqa: F401

    for found in pkgutil.walk_packages(fleet.__path__, "fleet."):
        if not found.name.startswith("fleet.shared."):
            importlib.import_module(found.name)
    gc.collect()
    gc.freeze()  # so that no verb copies what all share


def _serve(orders: socket.socket) -> None:
    """Fork for each order, until the other end closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for these
    while True:
        text, files, _, _ = socket.recv_fds(orders, _ORDER_MAX, 3)
        if not text:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(json.loads(text), *files)
            return
        for file in files:
            os.close(file)


def _answer(order: Mapping[str, Any], out: int, err: int, code: int) -> None:
    """Run the verb in one more process, and write its exit code."""
    verb = os.fork()
    if verb == 0:
        os.close(code)
        _become(order["words"], order["environment"], out, err)
    _, status = os.waitpid(verb, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(code, str(os.waitstatus_to_exitcode(status)).encode())


def _become(words: Sequence[str], environment: Mapping[str, str], out: int, err: int) -> None:
    """Run the verb as bin/invoke does. Raises SystemExit."""
    from invoke.main import program

    for ours, number in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(ours, number)
        os.close(ours)
    os.environ |= environment
    sys.argv = [str(INVOKE), *words]
    sys.exit(program.run())


if __name__ == "__main__":
    with socket.socket(fileno=os.dup(0)) as listening:
        _import_all()
        _serve(listening)
