"""A known_hosts that is the operator's own: the keys used of it, and that pinning loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paramiko import ECDSAKey, HostKeys, PKey, RSAKey

from engine import cache
from engine.known_hosts import parse, pin

OLD, NEW = ECDSAKey.generate(), ECDSAKey.generate()


def words(key: PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


SALT = "|1|c2FsdHNhbHRzYWx0c2FsdHNhbHQ=|"  # fixed, because names of tests contain it
HASHED = HostKeys.hash_host("b.org", SALT)
OTHERS = f"""\
# of ours
@cert-authority *.org ssh-rsa AAAA
@revoked b.org {words(OLD)}
a.org,c.org {words(OLD)} a comment

a.org sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t
nonsense
"""


def test_a_new_host_is_added_and_the_rest_stays_to_the_byte() -> None:
    assert pin(OTHERS, "b.org", NEW) == OTHERS + f"b.org {words(NEW)}\n"
    assert pin(OTHERS.rstrip("\n"), "b.org", NEW) == OTHERS + f"b.org {words(NEW)}\n"
    assert pin("", "b.org", NEW) == f"b.org {words(NEW)}\n"


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (f"b.org {words(OLD)}\n", ""),
        (f"{HASHED} {words(OLD)}\n", ""),
        (f"a.org,b.org,d.org {words(OLD)} told by phone\n", f"a.org,d.org {words(OLD)} told by phone\n"),
    ],
)
def test_an_old_key_goes_and_hosts_that_share_its_line_stay(line: str, left: str) -> None:
    found = pin(OTHERS + line + "z.org nothing\n", "b.org", NEW)
    assert sorted(found.splitlines()) == sorted(
        (OTHERS + left + f"b.org {words(NEW)}\nz.org nothing\n").splitlines()
    )
    assert parse(found).keys("b.org") == [NEW]
    assert OLD in parse(found).keys("a.org")


def test_each_usable_line_counts_as_with_ssh() -> None:
    pins = parse(f"a.org {words(NEW)}\n{OTHERS}")
    assert pins.keys("a.org") == [NEW, OLD]
    assert pins.keys("c.org") == [OLD]
    assert pins.keys("b.org") == []
    assert pins.is_revoked("b.org", OLD)
    assert not pins.is_revoked("a.org", OLD)
    assert pins.has_authority("b.org")
    assert pins.skipped == ["line 8: a host, the kind of a key and the key are expected"]


@pytest.mark.parametrize(
    ("names", "name", "fits"),
    [
        ("*.org", "a.org", True),
        ("*.ORG,x", "A.org", True),
        ("*.org,!a.org", "a.org", False),
        ("!b.org", "a.org", False),
        ("?.org", "ab.org", False),
        ("[a.org]:*", "[a.org]:2200", True),
        ("[a.org]:2200", "a", False),
        (HASHED, "b.org", True),
        (HASHED, "a.org", False),
    ],
)
def test_names_are_compared_as_ssh_does(names: str, name: str, fits: bool) -> None:
    assert parse(f"{names} {words(OLD)}\n").keys(name) == [OLD] * fits
    assert parse(f"@revoked {names} {words(OLD)}\n").is_revoked(name, OLD) == fits


SMALL = "AAAAB3NzaC1yc2EAAAADAQABAAAAAQE="  # an RSA key whose modulus is 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a.org ssh-rsa AAA", "the key is not base64"),
        ("a.org ssh-rsa \udcff\udcfe", "the key is not base64"),
        (f"a.org ssh-rsa {SMALL}", "the key cannot be read"),
        ("a.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==", "the key cannot be read"),
        (f"|1|AAAA ssh-rsa {SMALL}", "the hashed name is cut off"),
        (f"|1|=|= ssh-rsa {SMALL}", "the hashed name is cut off"),
        (f"|2|AAAA|AAAA ssh-rsa {SMALL}", "the hashed name is cut off"),
        (f"@other a.org ssh-rsa {SMALL}", "the mark '@other' is not known"),
        ("@revoked", "a host, the kind of a key and the key are expected"),
    ],
)
def test_a_line_that_cannot_be_used_is_skipped_with_words(line: str, why: str) -> None:
    pins = parse(f"{line}\na.org {words(NEW)}\n")
    assert [words.startswith(f"line 1: {why}") for words in pins.skipped] == [True]
    assert pins.keys("a.org") == [NEW]


def test_an_rsa_key_has_to_be_of_the_least_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.known_hosts.RSA_BITS", 4096)
    pins = parse(f"a.org {words(RSAKey.generate(2048))}\n")
    assert pins.keys("a.org") == []
    assert pins.skipped == ["line 1: the RSA key has 2048 bits, and 4096 are the least"]


LINES = (f"b.org {words(OLD)}", f"{HASHED} {words(OLD)}", f"@revoked *.org {words(OLD)}", SMALL, HASHED)
PIECES = st.sampled_from([*LINES, *OTHERS.split(" "), "\n", "|1|", "|", ",", "!", "*", "@", "=", "\udcff"])
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=12).map(" ".join) | st.text()


@given(text=TEXTS, cut=st.integers(0, 400), put=st.text(max_size=3))
def test_no_file_can_break_the_reader_or_pin_another_key(text: str, cut: int, put: str) -> None:
    text = text[:cut] + put + text[cut + len(put) :]
    assert NEW not in parse(text).keys("b.org")
    after = parse(pin(text, "b.org", NEW))
    assert NEW in after.keys("b.org")
    assert after.is_revoked("b.org", OLD) == parse(text).is_revoked("b.org", OLD)


def test_a_file_that_is_written_keeps_its_mode_and_a_link_its_place(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "known_hosts"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    cache.write(link, b"new")
    assert (link.is_symlink(), real.read_text(), real.stat().st_mode & 0o777) == (True, "new", 0o600)


def test_a_folder_is_no_file_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (folder, Path("/")):
        with pytest.raises(IsADirectoryError):
            cache.write(place, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
