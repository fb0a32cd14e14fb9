import logging
import os

import pytest

from relay.admission.allow_file import MAX_SIZE, AllowFile, AllowFileError, parse_allow_list

A, B = bytes(range(32)), bytes(range(32, 64))


def test_the_format():
    text = f"# comment\n\n  nodekey:{A.hex()}\n{B.hex().upper()} phone, kitchen\n#nodekey:x\r\n"
    assert parse_allow_list(text) == {A, B}
    assert parse_allow_list("") == frozenset()


@pytest.mark.parametrize(
    "line, says",
    [
        ("nodekey:00", "line 2 has 2 hex digits"),
        ("x" * 64, "line 2 is not hexadecimal"),
        ("mkey:" + "0" * 64, "line 2 has 69"),
    ],
)
def test_a_bad_line_is_named(line, says):
    with pytest.raises(ValueError, match=says):
        parse_allow_list(f"{A.hex()}\n{line}\n")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "allow"
    path.write_text(A.hex())
    return path


def warnings(caplog):
    return [r.message for r in caplog.records if r.levelno == logging.WARNING]


def test_a_change_counts_at_once(file):
    allow = AllowFile(str(file))
    assert allow.allows(A) and not allow.allows(B) and allow.generation == 0
    file.write_text(f"{B.hex()}\n")
    assert allow.allows(B) and not allow.allows(A) and allow.generation == 1
    file.write_text(f"{B.hex()} the same\n")
    assert allow.allows(B) and allow.generation == 1
    replacement = file.with_name("new")
    replacement.write_text(A.hex())
    replacement.replace(file)
    assert allow.allows(A) and allow.generation == 2


def test_a_file_gone_bad_leaves_the_list_and_says_so_once(file, caplog):
    allow = AllowFile(str(file))
    for bad in ("nonsense", b"\xff\xff"):
        (file.write_text if isinstance(bad, str) else file.write_bytes)(bad)
        for _ in range(3):
            assert allow.allows(A)
    file.unlink()
    for _ in range(3):
        assert allow.allows(A)
    assert warnings(caplog) == ["allow file cannot be used, the last list stays in force"] * 2 + [
        "allow file cannot be read, the last list stays in force"
    ]
    file.write_text(B.hex())
    assert allow.allows(B) and not allow.allows(A)


def test_a_file_that_vanishes_while_it_is_read(file, monkeypatch):
    allow = AllowFile(str(file))
    file.write_text("changed")
    monkeypatch.setattr(
        type(file),
        "read_text",
        lambda *_: (_ for _ in ()).throw(FileNotFoundError(2, "No such file or directory")),
    )
    assert allow.allows(A)


@pytest.mark.parametrize(
    "prepare, says",
    [
        (lambda f: f.unlink(), "No such file"),
        (lambda f: f.write_text("x"), "line 1"),
        (lambda f: os.truncate(f, MAX_SIZE + 1), "larger than 16 MiB"),
    ],
)
def test_at_the_start_it_must_be_good(file, prepare, says):
    prepare(file)
    with pytest.raises(AllowFileError, match=says):
        AllowFile(str(file))
