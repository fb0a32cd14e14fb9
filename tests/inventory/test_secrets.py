"""Secrets by reference: read when needed, shown nowhere."""

import copy
import json
import pickle
from pathlib import Path

import pytest

from inventory.secrets import Secret, SecretError, read_secret


def test_from_the_environment(monkeypatch):
    monkeypatch.setenv("SUDO_PW", " s3cret ")
    assert read_secret("env:SUDO_PW", base=Path("/")).reveal() == " s3cret "


def test_from_a_file_beside_the_site_or_anywhere(tmp_path, monkeypatch):
    (tmp_path / "pw").write_text("s3cret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for ref in ("file:pw", f"file:{tmp_path}/pw", "file:~/pw"):
        assert read_secret(ref, base=tmp_path).reveal() == "s3cret"


def test_from_a_command_run_beside_the_site(tmp_path):
    (tmp_path / "pw").write_text("a\nb\n")
    assert read_secret("cmd:cat pw", base=tmp_path).reveal() == "a\nb"


@pytest.mark.parametrize(
    ("ref", "why"),
    [
        ("env:NOT_THERE", "the environment variable NOT_THERE is not set, or empty"),
        ("file:none", "{base}/none: No such file or directory"),
        ("file:~nobody-of-that-name/pw", "{base}/~nobody-of-that-name/pw: No such file or directory"),
        ("file:.", "{base}: Is a directory"),
        ("file:empty", "{base}/empty is empty"),
        ("file:binary", "it is not UTF-8 text"),
        ("cmd:echo no such entry >&2; exit 3", "the command ended with exit status 3; its words are above"),
        ("cmd:true", "the command printed nothing"),
    ],
)
def test_leads_nowhere(ref, why, tmp_path):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SecretError) as caught:
        read_secret(ref, base=tmp_path)
    assert caught.value.why == why.format(base=tmp_path)
    assert (caught.value.exit_code, caught.value.what) == (4, f"secret {ref!r} cannot be read")


def test_a_command_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("inventory.secrets._COMMAND_S", 0.1)
    with pytest.raises(SecretError) as caught:
        read_secret("cmd:sleep 5", base=tmp_path)
    assert caught.value.why == "the command did not end within 0.1 s"


def test_shows_itself_nowhere():
    secret = Secret("s3cret")
    shown = [str(secret), repr(secret), f"{secret}", "%s" % secret]  # noqa: UP031
    shown += [str([secret]), str(vars(type(secret)))]
    assert not any("s3cret" in text for text in shown)
    with pytest.raises(TypeError, match="not written anywhere"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
