"""A known_hosts that is the operator's own: the keys used of it, and that pinning loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from paramiko import ECDSAKey, HostKeys, PKey

from engine import cache
from engine.known_hosts import parse, pin

OLD, NEW = ECDSAKey.generate(), ECDSAKey.generate()


def words(key: PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


HASHED = HostKeys.hash_host("b.org")
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
    assert parse(found).check("b.org", NEW)
    assert not parse(found).check("b.org", OLD)
    assert parse(found).check("a.org", OLD)


def test_what_paramiko_cannot_read_is_passed_by() -> None:
    assert list(parse(OTHERS)) == ["a.org", "c.org"]
    assert parse(f"a.org {words(NEW)}\n{OTHERS}").check("a.org", NEW)  # of two of a kind the first


def test_a_file_that_is_written_keeps_its_mode_and_a_link_its_place(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "known_hosts"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    cache.write(link, b"new")
    assert (link.is_symlink(), real.read_text(), real.stat().st_mode & 0o777) == (True, "new", 0o600)
