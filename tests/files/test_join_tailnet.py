"""files/scripts/join_tailnet.py with a stand-in for the `tailscale` program.

The real one joins a real headscale in tests/e2e/test_admissions.py.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.scripts import script

SERVER, SECRET = "https://hs.example.org", "hskey-auth-0123456789"
# It writes down its calls, and runs after a call of `up` that succeeds.
TAILSCALE = """#!/bin/sh
echo "$@" >>FOLDER/calls
case "$2" in
status) cat FOLDER/state 2>/dev/null || exit 1 ;;
debug) echo '{"ControlURL": "SERVER"}' ;;
logout) [ ! -e FOLDER/stuck ] && echo '{"BackendState": "NeedsLogin"}' >FOLDER/state ;;
up) cat FOLDER/refusal 2>/dev/null && exit 1; echo '{"BackendState": "Running"}' >FOLDER/state ;;
esac
"""


class Host:
    """A host with a `tailscale` that is in a state, or is not there."""

    def __init__(self, folder: Path, state: str = "NeedsLogin", server: str = SERVER) -> None:
        self.folder, self.key = folder, folder / "key"
        self.says(state)
        program = folder / "tailscale"
        program.write_text(TAILSCALE.replace("FOLDER", str(folder)).replace("SERVER", server))
        program.chmod(0o755)

    def says(self, state: str, *health: str) -> None:
        """Let the stand-in be in this state; "": it does not answer."""
        file = self.folder / "state"
        file.unlink(missing_ok=True)
        if state:
            file.write_text(json.dumps({"BackendState": state, "Health": health}))

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Run the script; with `more` it joins."""
        places = (str(self.folder / "tailscale"), "/run/x.sock", str(self.folder / "lib"), SERVER)
        argv = [sys.executable, "-I", "-c", script("join_tailnet"), *places, *more]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    def join(self) -> subprocess.CompletedProcess[str]:
        return self.run("derp-hk1", str(self.key))

    def up(self) -> str:
        """Return the one call that joins."""
        calls = (self.folder / "calls").read_text().splitlines()
        [call] = [line for line in calls if " up " in line]
        return call


def stored(**values: str) -> str:
    """Return tailscaled's state file with these values."""
    return json.dumps({key: base64.b64encode(value.encode()).decode() for key, value in values.items()})


@pytest.mark.parametrize(
    ("state", "server", "printed", "joined"),
    [
        ("Running", SERVER, "Running", True),
        ("Running", f"{SERVER}/", "Running", True),
        ("Running", "https://controlplane.tailscale.com", "Elsewhere", False),
        ("NeedsLogin", SERVER, "NeedsLogin", False),
        ("Starting", SERVER, "Starting", False),
        ("", SERVER, "", False),
    ],
)
def test_the_state_is_told_without_a_change(
    state: str, server: str, printed: str, joined: bool, tmp_path: Path
) -> None:
    host = Host(tmp_path, state, server)
    ran = host.run()
    assert (ran.stdout.strip(), ran.returncode == 0) == (printed, joined)
    assert " up " not in (tmp_path / "calls").read_text()


def test_one_that_was_there_before_is_down_and_a_missing_program_is_not_there(tmp_path: Path) -> None:
    host = Host(tmp_path, "")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/tailscaled.state").write_text(stored(_machinekey="privkey:00", _profiles='{"a1": {}}'))
    assert host.run().stdout.strip() == "Down"
    (tmp_path / "lib/tailscaled.state").unlink()
    (tmp_path / "lib").rmdir()
    (tmp_path / "tailscale").unlink()
    assert host.run().stdout.strip() == ""


@pytest.mark.parametrize(
    ("state", "printed"),
    [
        (None, "NeedsLogin"),
        ("{}", "NeedsLogin"),
        (stored(_machinekey="privkey:00"), "NeedsLogin"),
        (stored(_machinekey="privkey:00", _profiles="{}"), "NeedsLogin"),
        (stored(key="sealed", nonce="0", data="0"), "Down"),
        ("torn", "Down"),
    ],
)
def test_one_that_is_down_and_never_joined_needs_a_login(
    state: str | None, printed: str, tmp_path: Path
) -> None:
    """As the way back from a refused auth key leaves it: the next deploy has to send a key."""
    host = Host(tmp_path, "")
    (tmp_path / "lib").mkdir()
    if state is not None:
        (tmp_path / "lib/tailscaled.state").write_text(state)
    assert host.run().stdout.strip() == printed


def test_it_joins_with_the_key_by_its_file_and_removes_that(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.key.write_text(f"{SECRET}\n")
    ran = host.join()
    assert (ran.returncode, ran.stdout.strip()) == (0, "Running"), ran.stderr
    call = host.up()
    assert f"--auth-key=file:{host.key}" in call and "--shields-up" in call and "--accept-dns=false" in call
    assert f"--login-server={SERVER}" in call and "--hostname=derp-hk1" in call
    assert SECRET not in (tmp_path / "calls").read_text()
    assert not host.key.exists()


@pytest.mark.parametrize("stuck", [False, True])
def test_it_leaves_another_tailnet_first_and_with_force_if_it_has_to(stuck: bool, tmp_path: Path) -> None:
    """A login on top of another one may use the auth key twice."""
    host = Host(tmp_path, "Running", "https://controlplane.tailscale.com")
    if stuck:
        (tmp_path / "stuck").touch()
    host.key.write_text(SECRET)
    host.join()
    calls = (tmp_path / "calls").read_text()
    assert calls.index(" logout") < calls.index(" up ")
    assert ("--force-reauth --accept-risk=all" in host.up()) == stuck


def test_one_that_is_stopped_runs_again_without_a_key(tmp_path: Path) -> None:
    host = Host(tmp_path, "Stopped")
    assert host.join().returncode == 0
    assert "--auth-key" not in host.up() and "--force-reauth" not in host.up()


def test_a_node_that_the_tailnet_has_deleted_is_told_how_to_join_again(tmp_path: Path) -> None:
    """It had joined, so no key was sent."""
    host = Host(tmp_path)
    (tmp_path / "refusal").write_text("timeout waiting")
    ran = host.join()
    assert ran.returncode == 1
    assert "no longer knows this node" in ran.stderr and f"rm -r {tmp_path}/lib/*" in ran.stderr


@pytest.mark.parametrize(
    ("refusal", "state", "health", "words"),
    [
        ("backend error: authkey expired", "NeedsLogin", "", "refuses the auth key"),
        (f"backend error: invalid key: {SECRET}", "NeedsLogin", "", "refuses the auth key"),
        ("timeout waiting", "NeedsMachineAuth", "", "waits for an administrator"),
        ("timeout waiting", "NeedsLogin", "x509: unknown authority", "trust its TLS"),
    ],
)
def test_a_refusal_says_why_and_what_to_do_and_never_the_key(
    refusal: str, state: str, health: str, words: str, tmp_path: Path
) -> None:
    host = Host(tmp_path)
    host.says(state, health)
    host.key.write_text(SECRET)
    (tmp_path / "refusal").write_text(refusal)
    ran = host.join()
    assert ran.returncode == 1
    assert words in ran.stderr and SERVER in ran.stderr and health in ran.stderr
    assert refusal.partition(SECRET)[0] in ran.stderr
    assert SECRET not in ran.stderr + ran.stdout
    assert not host.key.exists()
