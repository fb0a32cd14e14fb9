"""certbot's folders as other programs and accidents leave them, and a real certbot on them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inventory.checkout import CHECKOUT
from tests.files.conftest import DOMAIN, Stage
from tests.files.test_certificate import succeeded, write_certificate

sys.path.insert(0, str(CHECKOUT / "files"))
import lineage

Edit = Callable[[Path], object]


def plain(base: Path) -> None:
    """Put files in place of links, as scp and hosting panels do."""
    for link in (base / "live" / DOMAIN).glob("*.pem"):
        content = link.read_bytes()
        link.unlink()
        link.write_bytes(content)


def linked(base: Path, name: str, target: str) -> None:
    link = base / "live" / DOMAIN / name
    link.unlink()
    link.symlink_to(target)


def elsewhere(base: Path) -> None:
    """Let the links lead to copies that certbot did not make."""
    shutil.copytree(base / "archive" / DOMAIN, base / "panel")
    for link in (base / "live" / DOMAIN).glob("*.pem"):
        linked(base, link.name, f"../../panel/{link.stem}1.pem")


def conf(base: Path, old: str, new: str) -> None:
    path = base / "renewal" / f"{DOMAIN}.conf"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def emptied(base: Path, *names: str) -> None:
    """Empty certbot's newest files, as a power cut can: certbot does not wait for the disk."""
    for name in names:
        assert (base / name.format(DOMAIN)).read_text()
        (base / name.format(DOMAIN)).write_text("")


def mixed(base: Path) -> None:
    """Let the key be another one, as after half a restore."""
    write_certificate(base, days=90, left=80)
    (base / "archive" / DOMAIN / "privkey1.pem").write_bytes((base / "privkey.pem").read_bytes())


BROKEN: dict[str, tuple[Edit, str]] = {
    "plain files": (plain, "cert.pem is a file, not a link to certbot's archive"),
    "no archive": (lambda base: shutil.rmtree(base / "archive"), "which is not there"),
    "no renewal file": (
        lambda base: shutil.rmtree(base / "renewal"), f"{DOMAIN}.conf is not there, but other parts"
    ),
    "no live folder": (lambda base: shutil.rmtree(base / "live"), "cert.pem is not there"),
    "one link is missing": (
        lambda base: (base / "live" / DOMAIN / "chain.pem").unlink(), "chain.pem is not there"
    ),
    "a link dangles": (
        lambda base: linked(base, "privkey.pem", f"../../archive/{DOMAIN}/privkey7.pem"),
        "privkey7.pem, which is not there",
    ),
    "links lead elsewhere": (elsewhere, "which is not in certbot's archive"),
    "the renewal file is another's": (
        lambda base: conf(base, f"live/{DOMAIN}/", "live/www.example.org/"), "does not lead to"
    ),
    "a line twice": (lambda base: conf(base, "version =", "version = 1\nversion ="), "line 2 is wrong"),
    "a section is torn": (lambda base: conf(base, "[renewalparams]", "[renewalp"), "is wrong: [renewalp"),
    "an empty renewal file": (lambda base: emptied(base, "renewal/{}.conf"), "it is empty"),
    "an empty certificate": (
        lambda base: emptied(base, "archive/{}/fullchain1.pem", "archive/{}/cert1.pem"), "which is empty"
    ),
    "an empty key": (lambda base: emptied(base, "archive/{}/privkey1.pem"), "which is empty"),
    "garbage": (
        lambda base: (base / "archive" / DOMAIN / "cert1.pem").write_text("garbage"),
        "are no certificate with",
    ),
    "another key": (mixed, "are no certificate with its key"),
}


@pytest.mark.parametrize(("edit", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_lineage_that_certbot_cannot_go_on_from_is_replaced_once_and_kept(
    stage: Stage, edit: Edit, words: str
) -> None:
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    base, first = stage.folder / "letsencrypt", stage.serial()
    edit(base)
    before = {path: path.read_bytes() for path in base.rglob("*.pem") if path.is_file()}
    assert stage.run("valid").returncode == 1
    ran = stage.run("obtain")
    assert succeeded(ran)
    assert words in ran.stdout
    assert "it is kept in" in ran.stdout
    assert succeeded(stage.run("valid"))
    assert stage.serial() != first
    assert [path.name for path in (base / "live").iterdir() if path.is_dir()] == [DOMAIN]
    assert not (base / "derpfleet-order").exists()
    kept = {path.read_bytes() for path in (base / "derpfleet-kept").rglob("*") if path.is_file()}
    assert {content for path, content in before.items() if DOMAIN in str(path)} <= kept
    # certbot goes on from the new one
    again = stage.serial()
    assert succeeded(stage.run("obtain"))
    assert stage.serial() == again
    assert succeeded(stage.run("obtain", "--force"))
    assert stage.serial() != again


def test_a_lineage_that_breaks_again_costs_no_second_order(stage: Stage) -> None:
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    base = stage.folder / "letsencrypt"
    plain(base)
    assert succeeded(stage.run("obtain"))
    plain(base)
    serial = stage.serial()
    for verb in (("obtain",), ("renew",), ("obtain", "--force")):
        ran = stage.run(*verb)
        assert ran.returncode == 1
        assert f"it was replaced before, and the former one is kept in {base}/derpfleet-kept" in ran.stderr
        assert "\nchange: find the program that writes to " in ran.stderr
    assert stage.serial() == serial
    shutil.rmtree(base / "derpfleet-kept")
    assert succeeded(stage.run("obtain"))
    assert stage.serial() != serial


def test_nothing_is_worse_after_an_order_that_failed(stage: Stage) -> None:
    stage.deploy()
    base = stage.folder / "letsencrypt"
    plain(base)
    stage.forget_account()
    before = sorted((str(path), path.is_symlink()) for path in base.rglob("*.*"))
    stage.configure(acme={"authenticator": ["--webroot", "--webroot-path", str(stage.folder)]})
    ran = stage.run("renew", "--force")
    assert ran.stderr.startswith("no certificate: unauthorized: ")
    assert f"\n127.0.0.1:{stage.https} still serves a certificate, which ends on " in ran.stderr
    after = sorted((str(path), path.is_symlink()) for path in base.rglob("*.*"))
    assert {path for path in after if "/accounts" not in path[0] and "log" not in path[0]} >= {
        path for path in before if "/accounts" not in path[0] and "log" not in path[0]
    }
    stage.await_served()


def test_a_failed_order_says_when_nothing_is_served(stage: Stage) -> None:
    ran = stage.run("renew", "--force")
    assert f"\n127.0.0.1:{stage.https} on this host serves NO certificate: [Errno 111]" in ran.stderr


FAKE = """\
import sys
print("Certificate is saved at: " + {saved!r})
open({orders!r}, "a").write("x")
def main():
    return 0
"""


@pytest.mark.parametrize("saved", [f"live/{DOMAIN}-0001", f"live/{DOMAIN}"])
def test_an_order_in_vain_is_the_last_until_an_operator_has_looked(stage: Stage, saved: str) -> None:
    """A certbot that succeeds, and puts the certificate elsewhere or nowhere."""
    package, orders = stage.folder / "fake" / "certbot", stage.folder / "orders"
    (package / "_internal").mkdir(parents=True)
    (package / "_internal" / "constants.py").write_text("CLI_DEFAULTS = {}\n")
    where = str(stage.folder / "letsencrypt" / saved / "fullchain.pem")
    (package / "main.py").write_text(FAKE.format(saved=where, orders=str(orders)))
    stage.configure(acme={"certbot": str(package.parent)})
    for _ in range(3):
        ran = stage.run("renew")
        assert ran.returncode == 1
        assert ran.stderr.startswith("certbot ")
        assert f"\nchange: fix it, then remove {stage.folder}/letsencrypt/derpfleet-kept/" in ran.stderr
    assert orders.read_text() == "x"
    stage.run("renew", "--force")
    assert orders.read_text() == "xx"
    stage.configure()
    (stage.folder / "letsencrypt" / "derpfleet-kept" / f"{DOMAIN}.stop").unlink()
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = 1\nb = \"x # y\"\n[r]\na = 2\n[[webroot_map]]\nhk1 = /srv\n", ""),
        ("# only\n", "it is empty"),
        ("a = 1\na = 2", "line 2 is wrong: a = 2"),
        ("a = 'b", "line 1 is wrong: a = 'b"),
        ("a = 1\n[[r]\n", "line 2 is wrong: [[r]"),
        ("a = 1\n\x00\x00", "line 2 is wrong: \x00\x00"),
    ],
)
def test_settings(text: str, fault: str) -> None:
    assert lineage.settings(text)[1] == fault


def test_options_and_hooks_of_another_program_are_not_used(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cli.ini is read from the home folder here: /etc/letsencrypt is this machine's."""
    stage.start_nginx()
    home, ran = stage.folder / "home", stage.folder / "ran"
    (home / "letsencrypt").mkdir(parents=True)
    hooks = "".join(f"{when}-hook = touch {ran}-{when}\n" for when in ("pre", "post"))
    (home / "letsencrypt" / "cli.ini").write_text(f"{hooks}key-type = rsa\nno-such-option = 1\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    for when in ("pre", "post", "deploy"):
        folder = stage.folder / "letsencrypt" / "renewal-hooks" / when
        folder.mkdir(parents=True)
        (folder / "theirs").write_text(f"#!/bin/sh\ntouch {ran}-{when}\n")
        (folder / "theirs").chmod(0o755)
    assert succeeded(stage.run("obtain"))
    conf(stage.folder / "letsencrypt", "[renewalparams]", f"[renewalparams]\npre_hook = touch {ran}-saved")
    assert succeeded(stage.run("obtain", "--force"))
    assert list(stage.folder.glob("ran-*")) == []
    assert "pre_hook" not in (stage.folder / "letsencrypt" / "renewal" / f"{DOMAIN}.conf").read_text()


def test_the_distributions_certbot_is_run_by_its_own_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lineage.certbot(None) == ["certbot"]
    shebangs = {"#!/usr/bin/python3 -sP": "/usr/bin/python3", "#! /opt/python3.9": "/opt/python3.9"}
    for first, python in shebangs.items():
        (tmp_path / "certbot").write_text(f"{first}\nimport re\n")
        (tmp_path / "certbot").chmod(0o755)
        assert lineage.certbot(None) == [python, "-I", lineage.__file__, ""]
    (tmp_path / "certbot").write_text("#!/bin/sh\n")
    assert lineage.certbot(None) == [str(tmp_path / "certbot")]


@pytest.mark.parametrize("state", ["gone", "two", "torn"])
def test_an_account_is_found_or_made(stage: Stage, state: str) -> None:
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    accounts = stage.folder / "letsencrypt" / "accounts"
    (account,) = (path.parent for path in accounts.rglob("regr.json"))
    if state == "gone":
        shutil.rmtree(accounts)
    elif state == "two":
        shutil.copytree(account, account.with_name("0" * 32))
    else:
        (account / "private_key.json").write_text("")
    assert succeeded(stage.run("obtain", "--force"))


@pytest.mark.parametrize("replaced", [False, True])
def test_a_renewal_keeps_the_mode_and_owner_of_the_key(stage: Stage, replaced: bool) -> None:
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    key = stage.live / "privkey.pem"
    key.chmod(0o640)
    os.chown(key, -1, 33 if os.geteuid() == 0 else -1)
    was = key.stat()
    if replaced:
        plain(stage.folder / "letsencrypt")
        os.chown(key, was.st_uid, was.st_gid)
        key.chmod(0o640)
    content = key.read_bytes()
    assert succeeded(stage.run("obtain", "--force"))
    now = key.stat()
    assert key.read_bytes() != content
    assert (now.st_mode, now.st_uid, now.st_gid) == (was.st_mode, was.st_uid, was.st_gid)


def test_a_key_that_everybody_could_read_is_replaced_by_one_that_nobody_else_can(stage: Stage) -> None:
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    plain(stage.folder / "letsencrypt")
    key = stage.live / "privkey.pem"
    key.chmod(0o644)  # as scp leaves it
    assert succeeded(stage.run("obtain"))
    assert key.stat().st_mode & 0o777 == 0o640


def test_a_folder_that_cannot_be_written_is_named_without_a_traceback(stage: Stage) -> None:
    base = stage.folder / "letsencrypt"
    (base / "live" / DOMAIN).mkdir(parents=True)
    (base / "live" / DOMAIN / "cert.pem").write_text("")
    (base / "accounts").write_text("")  # another state that ends in an OSError is a full disk
    ran = stage.run("obtain")
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"{base / 'accounts'}: File exists")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("hours", [2, -2, 200 * 24])
def test_a_wrong_clock_is_named_and_nothing_is_ordered(
    stage: Stage, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    serial = stage.serial()
    stepped = f"import time\nreal = time.time\ntime.time = lambda: real() + {hours} * 3600\n"
    (stage.folder / "sitecustomize.py").write_text(stepped)
    monkeypatch.setenv("PYTHONPATH", str(stage.folder))
    ran = stage.run("renew", "--force")
    assert ran.returncode == 1
    assert ran.stderr.startswith("this host's clock is wrong: it says ")
    assert "\nchange: set the clock (timedatectl set-ntp true" in ran.stderr
    assert stage.serial() == serial
