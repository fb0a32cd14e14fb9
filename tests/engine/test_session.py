"""The transport and the session against a real sshd.

Every refusal is named, and nothing is sent before READY.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine import transport
from engine.boot import agent_payload
from engine.facts import Ask
from engine.login import Unreachable
from engine.plan import sha256
from engine.resource import Command, Directory, File
from engine.session import Locked, Session, Stopped
from engine.ssh import offered_host_key
from engine.transport import NotReady, run_once
from inventory.errors import DerpfleetError
from lab.delaying import delaying
from tests.engine.conftest import Run, login_to, renamed
from tests.support.sshd import PASSWORD, Account, Sshd

NewSshd = Callable[..., Sshd]
LOGIN_BYTES = 8000  # more than a login and the boot line take, and less than the agent


@pytest.mark.parametrize("user", ["root", "free", "admin"])
def test_twice_is_no_change(sshd: Sshd, run: Run, user: str, sudo_password: str) -> None:
    login = login_to(sshd, user, **({"sudo_password": sudo_password} if user == "admin" else {}))
    folder = f"/var/tmp/twice-{user}"
    resources = [
        Directory(path=folder),
        File(path=f"{folder}/a", content=b"one\n", needs=(f"directory:{folder}",)),
        Command(title="b", argv=("touch", f"{folder}/b"), creates=f"{folder}/b"),
    ]
    before = run(login, resources, mode="check")
    first, second = run(login, resources), run(login, resources)
    assert before.counts == {"changed": 3, "failed": 0, "ok": 0, "skipped": 0}
    assert first.counts == {"changed": 3, "failed": 0, "ok": 0, "skipped": 0}
    assert second.counts == {"changed": 0, "failed": 0, "ok": 3, "skipped": 0}
    assert second.facts.python >= (3, 6, 0)


def test_asked_files_programs_and_commands_are_facts(sshd: Sshd, run: Run) -> None:
    ask = Ask(
        files=("/etc/host*", "/nowhere"),
        tools=("sh", "no-such-program"),
        commands={"greet": ("echo", "hi"), "none": ("no-such-program",)},
    )
    facts = run(login_to(sshd), [], ask=ask).facts
    assert "/etc/hostname" in facts.files
    assert list(facts.tools) == ["sh"] and facts.tools["sh"].endswith("/sh")
    assert facts.commands["greet"].stdout == "hi\n"
    assert facts.commands["none"].status == 127
    assert facts.ssh_ports[0] == sshd.port


def test_links_that_lead_nowhere_are_no_files(new_sshd: NewSshd, run: Run) -> None:
    server = new_sshd()
    sites = server.root / "etc/sites"
    sites.mkdir()
    (sites / "there").write_text("x")
    (sites / "default").symlink_to("/etc/nothing")
    (sites / "round").symlink_to("round")
    facts = run(login_to(server), [], ask=Ask(files=("/etc/sites/*", "/etc/sites/default"))).facts
    assert list(facts.files) == ["/etc/sites/there"]


def test_a_second_question_adds_to_the_facts(sshd: Sshd) -> None:
    with Session(
        login_to(sshd),
        ask=Ask(files=("/etc/hostname",), tools=("sh",)),
        run_id="q",
        on_event=lambda _: None,
    ) as session:
        facts = session.ask(Ask(files=("/etc/hosts",), tools=("env",)))
    assert {"/etc/hostname", "/etc/hosts"} <= set(facts.files)
    assert set(facts.tools) == {"sh", "env"}
    assert facts.os_id


@pytest.mark.parametrize(
    ("user", "ssh", "what"),
    [
        ("admin", {}, "sudo wants a password"),
        ("admin", {"sudo_password": "env:WRONG"}, "sudo did not accept the password"),
        ("plain", {}, "sudo wants a password"),
        ("root", {"python": "/usr/bin/python9"}, "the host has no /usr/bin/python9"),
        ("free", {"python": "/usr/bin/python9"}, "the host has no /usr/bin/python9"),
    ],
)
def test_no_root_and_no_python_are_named(
    sshd: Sshd, user: str, ssh: dict[str, str], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "not the password")
    error = _refused(sshd, user, **ssh)
    assert error.what == what
    assert error.next
    assert "not the password" not in f"{error.why}{error.where}"


def test_a_host_without_sudo_is_named(new_sshd: NewSshd) -> None:
    assert _refused(new_sshd(without=["/usr/bin/sudo"]), "free").what == "the host has no sudo"


def test_noise_from_the_login_shell_is_named(new_sshd: NewSshd) -> None:
    server = new_sshd(accounts=[Account("noisy", sudo="free", noise="welcome to the machine")])
    error = _refused(server, "noisy")
    assert error.what == "the login shell prints to standard output"
    assert "welcome to the machine" in error.why


def test_the_payload_is_larger_than_all_that_a_refused_login_sends(sshd: Sshd) -> None:
    with delaying((sshd.address, sshd.port), rtt_s=0.002) as proxy:
        login = login_to(sshd, port=proxy.port, known_hosts=renamed(sshd, proxy.port))
        with Session(login, ask=Ask(), run_id="x", on_event=lambda _: None):
            assert proxy.counts().bytes_up > len(agent_payload()) > LOGIN_BYTES


def _refused(server: Sshd, user: str, **ssh: str) -> NotReady:
    """Return the error of a login without an agent.

    The payload was not sent: the bytes on the wire are fewer than it has.
    """
    with delaying((server.address, server.port), rtt_s=0.002) as proxy:
        login = login_to(server, user, port=proxy.port, known_hosts=renamed(server, proxy.port), **ssh)
        with pytest.raises(NotReady) as error:
            Session(login, ask=Ask(), run_id="x", on_event=lambda _: None)
        assert 0 < proxy.counts().bytes_up < LOGIN_BYTES
    return error.value


def test_an_unknown_host_key_stops(sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(Unreachable) as error:
        run_once(login_to(sshd, known_hosts=tmp_path / "none"), ["true"])
    assert error.value.what == "the host key is not known"
    assert error.value.next.endswith("invoke trust --host hk1")
    assert not (tmp_path / "none").exists()


def test_a_changed_host_key_stops(sshd: Sshd, new_sshd: NewSshd, tmp_path: Path) -> None:
    other = new_sshd().host_key
    pinned = tmp_path / "known_hosts"
    pinned.write_text(f"[127.0.0.1]:{sshd.port} {other}\n")
    with pytest.raises(Unreachable) as error:
        run_once(login_to(sshd, known_hosts=pinned), ["true"])
    assert error.value.what == "the host key has CHANGED"
    assert pinned.read_text().count("\n") == 1


def test_the_offered_key_is_the_hosts(sshd: Sshd) -> None:
    assert offered_host_key(login_to(sshd)).get_base64() == sshd.host_key.split()[1]


@pytest.mark.parametrize(
    ("ssh", "what"), [({"port": 1}, "no connection"), ({"user": "nobody-here"}, "login refused")]
)
def test_no_login_is_named(sshd: Sshd, ssh: dict[str, object], what: str) -> None:
    with pytest.raises(Unreachable) as error:
        run_once(login_to(sshd, **ssh), ["true"])
    assert error.value.what == what


def test_a_single_command_gets_sudos_password_when_sudo_asks(new_sshd: NewSshd, sudo_password: str) -> None:
    """Do not send it before: the login shell's own files may read it."""
    reads = 'read -r -t 1 stolen; echo "got:$stolen" > /tmp/stolen\n'
    server = new_sshd(accounts=[Account("admin", PASSWORD, sudo="password", bashrc=reads)])
    assert run_once(login_to(server, "admin", sudo_password=sudo_password), ["id", "-un"]) == (0, "root\n")
    assert (server.root / "tmp/stolen").read_text() == "got:\n"


def test_a_single_command_says_that_sudos_password_is_wrong(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "not the password")
    with pytest.raises(NotReady) as error:
        run_once(login_to(sshd, "admin", sudo_password="env:WRONG"), ["true"])
    assert error.value.what == "sudo did not accept the password"
    assert "derpfleet" not in error.value.why


def test_a_single_command_that_is_silent_is_no_lost_connection(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "SILENCE_S", 0.3)
    with pytest.raises(Unreachable) as error:
        run_once(login_to(sshd), ["sleep", "5"])
    assert error.value.what == "sleep does not end"
    assert error.value.why == "it printed nothing for 0.3 s"


def test_nothing_is_asked_before_it_may_be(sshd: Sshd) -> None:
    """Not even for the lock, which another run may take meanwhile."""

    def another_run() -> None:
        with Session(login_to(sshd), ask=Ask(), run_id="1", on_event=lambda _: None) as other:
            assert other.facts.hostname
        raise DerpfleetError("not now")

    with pytest.raises(DerpfleetError, match="not now"):
        Session(
            login_to(sshd), ask=Ask(), run_id="2", on_event=lambda _: None, before_asking=another_run
        )
    with Session(login_to(sshd), ask=Ask(), run_id="3", on_event=lambda _: None) as session:
        assert session.facts.hostname


def test_each_of_two_threads_gets_its_own_answer(sshd: Sshd) -> None:
    numbers = [str(number) for number in range(8)]
    with Session(login_to(sshd), ask=Ask(), run_id="1", on_event=lambda _: None) as session:

        def said(number: str) -> str:
            return session.ask(Ask(commands={number: ("echo", number)})).commands[number].stdout

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(said, numbers)) == [f"{number}\n" for number in numbers]


def test_the_second_run_says_who_holds_the_lock(sshd: Sshd) -> None:
    with Session(login_to(sshd), ask=Ask(), run_id="1", on_event=lambda _: None):
        with pytest.raises(Locked) as error:
            Session(login_to(sshd), ask=Ask(), run_id="2", on_event=lambda _: None)
        assert "@" in error.value.what
        assert "since 20" in error.value.what
        assert error.value.exit_code == 5
        with Session(login_to(sshd), ask=Ask(), run_id="3", on_event=lambda _: None, lock=False) as look:
            assert look.facts.hostname


def test_a_failed_resource_says_why_and_the_rest_is_not_reached(sshd: Sshd, run: Run) -> None:
    bad = Command(title="bad", argv=("sh", "-c", "echo reason >&2; exit 3"), creates="/nowhere/x")
    outcome = run(login_to(sshd), [bad, Directory(path="/var/tmp/never")])
    assert outcome.counts == {"changed": 0, "failed": 1, "ok": 0, "skipped": 1}
    assert outcome.failures[0].why == "reason"
    assert not (sshd.root / "var/tmp/never").exists()


def test_stop_finishes_the_resource_in_hand(sshd: Sshd, run: Run) -> None:
    sleepy = _slow_steps("stop")
    begun = threading.Event()
    sessions: list[Session] = []

    def stop() -> None:
        begun.wait(10)
        sessions[0].stop()

    thread = threading.Thread(target=stop)
    thread.start()
    outcome = run(
        login_to(sshd),
        sleepy,
        on_session=sessions.append,
        on_event=lambda event: begun.set() if event["event"] == "diff" else None,
    )
    thread.join()
    assert outcome.counts == {"changed": 1, "failed": 0, "ok": 0, "skipped": 2}
    assert outcome.stopped
    assert (sshd.root / "var/tmp/stop-0").exists()


@pytest.mark.parametrize("moment", ["planning", "sending"])
def test_a_stop_before_the_agent_has_begun_changes_nothing(
    sshd: Sshd, run: Run, tmp_path: Path, moment: str
) -> None:
    big = tmp_path / "big"
    big.write_bytes(random.randbytes(5_000_000))
    wanted, sessions = [File(path=f"/var/tmp/stopped-{moment}", content=big)], list[Session]()

    def stop_while(now: str) -> None:
        if now == moment:
            sessions[0].stop()

    def begin(session: Session) -> None:
        sessions.append(session)
        stop_while("planning")

    with pytest.raises(Stopped) as error:
        run(login_to(sshd), wanted, on_session=begin, on_event=lambda event: stop_while(event["event"]))
    assert error.value.exit_code == 130
    assert not (sshd.root / wanted[0].path.lstrip("/")).exists()
    assert run(login_to(sshd), wanted).counts["changed"] == 1


def test_a_full_disk_is_reported_while_contents_are_sent(new_sshd: NewSshd, run: Run, tmp_path: Path) -> None:
    """Give up a content that does not fit in its middle, and free its room."""
    server, big = new_sshd(), tmp_path / "big"
    big.write_bytes(random.randbytes(20_000_000))
    wanted = [
        File(path="/srv/small", content=b"small"),
        File(path="/srv/big", content=big),
        File(path="/srv/last", content=b"last"),
    ]
    incoming = "/var/lib/derpfleet/incoming"
    assert server.run("mkdir", "-p", incoming).returncode == 0
    assert server.run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", incoming).returncode == 0
    with pytest.raises(DerpfleetError) as error:
        run(login_to(server), wanted)
    assert (error.value.what, error.value.host, error.value.where) == (
        "a content cannot be kept",
        "hk1",
        incoming,
    )
    assert (error.value.why, error.value.exit_code) == ("[Errno 28] No space left on device", 1)
    assert "df -h" in error.value.next
    assert [path.name for path in (server.root / incoming.lstrip("/")).iterdir()] == [sha256(b"small")]
    # Lazily: the agent has reported it before it ends and closes its files.
    assert server.run("umount", "--lazy", incoming).returncode == 0
    assert run(login_to(server), wanted).counts["changed"] == 3


def test_a_full_disk_is_reported_when_the_journal_has_no_room(new_sshd: NewSshd, run: Run) -> None:
    server, folder = new_sshd(), "/var/lib/derpfleet/journal"
    assert server.run("mkdir", "-p", folder).returncode == 0
    assert server.run("mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder).returncode == 0
    (server.root / folder.lstrip("/") / "full").write_bytes(bytes(4096))
    with pytest.raises(DerpfleetError) as error:
        run(login_to(server), [Directory(path="/srv/kept")])
    assert (error.value.what, error.value.why) == (
        "the host's disk is full or read-only",
        "No space left on device",
    )
    assert "df -h" in error.value.next
    assert not (server.root / "srv/kept").exists()
    assert server.run("umount", "--lazy", folder).returncode == 0
    assert run(login_to(server), [Directory(path="/srv/kept")]).counts["changed"] == 1


def test_a_content_that_changes_while_it_is_sent_is_reported(sshd: Sshd, run: Run, tmp_path: Path) -> None:
    changing = tmp_path / "changing"
    changing.write_bytes(bytes(2_000_000))  # no small one, which may come with the plan

    def change(event: dict[str, Any]) -> None:
        if event["event"] == "want":
            changing.write_bytes(bytes(1_999_999) + b"1")

    with pytest.raises(DerpfleetError) as error:
        run(login_to(sshd), [File(path="/var/tmp/changing", content=changing)], on_event=change)
    assert error.value.what == "a content cannot be kept"
    assert error.value.why.startswith("it arrived damaged, or was changed while it was sent: ")
    assert error.value.exit_code == 1
    assert error.value.next.startswith("run the same command again; ")
    assert not (sshd.root / "var/tmp/changing").exists()


def test_closing_a_session_from_another_thread_ends_its_run(new_sshd: NewSshd, run: Run) -> None:
    long = Command(title="long", argv=("sh", "-c", "sleep 20; touch /var/tmp/long"), creates="/var/tmp/long")
    sessions: list[Session] = []

    def close_soon(event: dict[str, Any]) -> None:
        if event["event"] == "diff":
            threading.Timer(0.2, sessions[0].close).start()

    began = time.monotonic()
    with pytest.raises(Unreachable):
        run(login_to(new_sshd()), [long], on_session=sessions.append, on_event=close_soon)
    assert time.monotonic() - began < 15
    assert not sessions[0].is_open


def test_a_cut_connection_leaves_a_host_that_converges(sshd: Sshd, run: Run) -> None:
    steps = _slow_steps("cut")
    with delaying((sshd.address, sshd.port), rtt_s=0.02) as proxy:
        login = login_to(sshd, port=proxy.port, known_hosts=renamed(sshd, proxy.port))
        with pytest.raises(Unreachable) as error:
            run(login, steps, on_event=lambda event: proxy.cut() if event["event"] == "diff" else None)
    assert error.value.what == "the connection was lost"
    deadline = time.monotonic() + 10
    while not (sshd.root / "var/tmp/cut-0").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    outcome = run(login_to(sshd), steps)
    assert outcome.counts == {"changed": 2, "failed": 0, "ok": 1, "skipped": 0}


def _slow_steps(name: str) -> list[Command]:
    paths = [f"/var/tmp/{name}-{number}" for number in range(3)]
    return [
        Command(title=path, argv=("sh", "-c", f"sleep 0.5; touch {path}"), creates=path) for path in paths
    ]


def test_a_large_blob_arrives_whole_and_secrets_stay_out_of_the_log(
    sshd: Sshd, run: Run, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 20000)
    outcome = run(
        login_to(sshd),
        [
            File(path="/var/tmp/big", content=big),
            File(path="/var/tmp/key", content=b"hush-hush\n", secret=True, mode="0600"),
        ],
    )
    assert (sshd.root / "var/tmp/big").read_bytes() == big.read_bytes()
    log = outcome.log.read_text()
    assert "hush-hush" not in log
    assert outcome.log.stat().st_mode & 0o777 == 0o600
    assert json.loads(log.splitlines()[0])["event"] == "hello"


def test_turns_on_the_wire_do_not_grow_with_resources(sshd: Sshd, run: Run) -> None:
    counts = {}
    for number in (2, 60):
        resources = [File(path=f"/var/tmp/turns-{n}", content=b"x" * 500) for n in range(number)]
        run(login_to(sshd), resources)
        with delaying((sshd.address, sshd.port), rtt_s=0.05) as proxy:
            login = login_to(sshd, port=proxy.port, known_hosts=renamed(sshd, proxy.port))
            assert run(login, resources).counts["ok"] == number
            counts[number] = proxy.counts().turns
    assert counts[60] <= counts[2] + 1
    assert counts[60] <= 12


def test_the_history_comes_along_with_the_facts(sshd: Sshd) -> None:
    newest = set[int]()

    def turns(ask: Ask, questions: int) -> int:
        with delaying((sshd.address, sshd.port), rtt_s=0.1) as proxy:
            login = login_to(sshd, port=proxy.port, known_hosts=renamed(sshd, proxy.port))
            with Session(login, ask=ask, run_id="x", on_event=lambda _: None, lock=False) as session:
                newest.update(session.history().newest for _ in range(questions))
            return proxy.counts().turns

    assert turns(Ask(history=True), 1) == turns(Ask(), 0)
    assert turns(Ask(history=True), 2) == turns(Ask(), 1) == turns(Ask(), 0) + 1
    assert len(newest) == 1
