"""The program that makes a relay's key on its host, as root."""

from __future__ import annotations

import grp
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.scripts import script
from relay.keys.node_key import parse_key_file, read_or_create_key

GROUP = grp.getgrgid(os.getgid()).gr_name


def make(folder: Path, *, old: Path | None = None) -> subprocess.CompletedProcess[str]:
    argv = [
        sys.executable,
        "-I",
        "-c",
        script("make_key"),
        str(folder / "derper.key"),
        GROUP,
        str(old or folder / "none"),
    ]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_a_new_key_is_one_that_only_the_relays_group_reads(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert make(tmp_path / name).returncode == 0
        assert [path.name for path in (tmp_path / name).iterdir()] == ["derper.key"]
    one, two = tmp_path / "one/derper.key", tmp_path / "two/derper.key"
    assert (oct(one.stat().st_mode), one.stat().st_uid, one.group()) == ("0o100640", os.getuid(), GROUP)
    assert parse_key_file(one.read_bytes()) != parse_key_file(two.read_bytes())


def test_the_key_of_a_relay_set_up_by_hand_is_kept(tmp_path: Path) -> None:
    old = tmp_path / "old.key"
    key = read_or_create_key(old)
    assert make(tmp_path, old=old).returncode == 0
    assert parse_key_file((tmp_path / "derper.key").read_bytes()) == key


@pytest.mark.parametrize("name", ["derper.key.new", "derper.key"])
def test_nothing_is_written_through_a_planted_link(tmp_path: Path, name: str) -> None:
    target = tmp_path / "shadow"
    target.write_text("theirs")
    target.chmod(0o644)
    before = target.stat()
    (tmp_path / name).symlink_to(target)
    assert make(tmp_path).returncode == 0
    after = target.stat()
    assert (target.read_text(), after.st_mode, after.st_ctime_ns) == (
        "theirs",
        before.st_mode,
        before.st_ctime_ns,
    )
    assert not (tmp_path / "derper.key").is_symlink()


@pytest.mark.parametrize("text", ["root:$6$secret:19000:0:99999:7:::\n", '{"PrivateKey": "secret"}', "[]"])
def test_another_file_in_the_old_keys_place_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    old = tmp_path / "old.key"
    old.write_text(text)
    done = make(tmp_path, old=old)
    assert (done.returncode, "secret" in done.stderr) == (1, False)
    assert (
        done.stderr == f"{old} is not a derper key: put the right one there, or remove it to get a new key\n"
    )
    assert not (tmp_path / "derper.key").exists()


def test_an_old_key_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text(json.dumps({"PrivateKey": "privkey:" + "ab" * 32}))
    (tmp_path / "old.key").symlink_to(tmp_path / "theirs")
    assert "is not a derper key" in make(tmp_path, old=tmp_path / "old.key").stderr
