import fcntl
import os
import socket
import subprocess
import sys

import pytest

from relay import systemd
from relay.systemd import Notifier, take_sockets, watchdog_interval_s


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": ""},
    ],
)
def test_nothing_for_this_process(environ):
    assert take_sockets(environ, os.getpid()) == []
    assert environ == {}, "nor for a child"


def test_sockets_are_taken_with_their_names(monkeypatch):
    with socket.socket() as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        first = fcntl.fcntl(a.fileno(), fcntl.F_DUPFD, 900)
        assert fcntl.fcntl(b.fileno(), fcntl.F_DUPFD, first + 1) == first + 1
    monkeypatch.setattr(systemd, "FIRST_FD", first)
    (name, main), (unnamed, stun) = take_sockets(
        {"LISTEN_FDS": "2", "LISTEN_PID": "7", "LISTEN_FDNAMES": "main"}, 7
    )
    with main, stun:
        assert (name, unnamed) == ("main", "")
        assert main.type == socket.SOCK_STREAM and stun.type == socket.SOCK_DGRAM
        assert not main.getblocking() and not os.get_inheritable(stun.fileno())


def test_a_child_process_takes_what_it_is_handed():
    """As systemd does it: descriptor 3, and the variables, across exec."""
    program = (
        "import os; from relay.systemd import take_sockets;"
        "e = os.environ; e['LISTEN_PID'] = str(os.getpid());"
        "print([(n, s.getsockname()[1]) for n, s in take_sockets(e, os.getpid())], 'LISTEN_FDS' in e)"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        manager = (
            f"import os; os.dup2({server.fileno()}, 3); "
            f"os.execv({sys.executable!r}, ['python', '-c', {program!r}])"
        )
        out = subprocess.run(
            [sys.executable, "-c", manager],
            env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "derp"},
            pass_fds=[server.fileno()],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert out.strip() == f"[('derp', {server.getsockname()[1]})] False"


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(5)
        yield s


def test_notifications(manager):
    n = Notifier(manager.getsockname())
    n.ready()
    n.ready("serving\nFAKE=1")
    n.reloading()
    n.stopping()
    n.stopping("draining 3 clients")
    n.status("12 clients")
    n.alive()
    got = [manager.recv(4096).decode() for _ in range(7)]
    assert got[:2] == ["READY=1", "READY=1\nSTATUS=serving FAKE=1"]
    key, _, usec = got[2].partition("\nMONOTONIC_USEC=")
    assert key == "RELOADING=1" and int(usec) > 0
    assert got[3:] == [
        "STOPPING=1",
        "STOPPING=1\nSTATUS=draining 3 clients",
        "STATUS=12 clients",
        "WATCHDOG=1",
    ]


def test_abstract_sockets():
    name = f"derpfleet-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(f"\0{name}")
        s.settimeout(5)
        Notifier(f"@{name}").alive()
        assert s.recv(100) == b"WATCHDOG=1"


def test_a_missing_listener_is_no_error(tmp_path):
    Notifier().ready()
    Notifier(str(tmp_path / "nowhere")).ready()


@pytest.mark.parametrize(
    "environ, interval",
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "30000000"}, 15),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
    ],
)
def test_watchdog(environ, interval):
    assert watchdog_interval_s(environ, 7) == interval
