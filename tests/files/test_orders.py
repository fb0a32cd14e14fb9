"""The orders of files/certificate.py: for which names, when they are due, and when none is made.

Against a real ACME server, with our shipped certbot.
"""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from tests.files.conftest import DOMAIN, Stage, succeeded
from tests.support.acme import pebble


def test_several_names_of_which_one_is_left_out_again(stage: Stage) -> None:
    """A name that we ordered is ours to leave out; one that another program ordered is not."""
    stage.start_nginx()
    stage.configure(acme={"names": [DOMAIN, "more.example.org"]})
    assert succeeded(stage.run("obtain"))
    assert succeeded(stage.run("valid"))
    stage.configure(acme={"names": [DOMAIN, "more.example.org", "third.example.org"]})
    assert "is not for third.example.org" in stage.run("valid").stderr
    assert succeeded(stage.run("obtain"))
    stage.configure()
    assert succeeded(stage.run("valid"))
    before = stage.serial()
    assert succeeded(stage.run("obtain", "--force"))
    assert stage.serial() != before
    names = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(stage.live / "fullchain.pem")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert re.findall(r"DNS:(\S+)", names) == [DOMAIN]


def test_a_short_lived_certificate_is_due_by_its_share_of_life(stage: Stage) -> None:
    stage.start_nginx()
    stage.configure(acme={"profile": "shortlived"})
    assert succeeded(stage.run("obtain"))
    week, path = str(7 * 86400), str(stage.live / "fullchain.pem")
    argv = ["openssl", "x509", "-noout", "-checkend", week, "-in", path]
    assert subprocess.run(argv, check=False, capture_output=True).returncode == 1
    first = stage.serial()
    assert succeeded(stage.run("valid"))
    assert succeeded(stage.run("obtain"))
    assert stage.serial() == first


@pytest.mark.parametrize("profile", ["classic", "shortlived"])
def test_a_renewal_is_due_when_the_authority_says_so(stage: Stage, profile: str) -> None:
    """An authority that has to revoke certificates asks for new ones first (ARI, RFC 9773)."""
    stage.start_nginx()
    stage.configure(acme={"profile": profile})
    assert succeeded(stage.run("obtain"))
    first, now, hour = stage.serial(), datetime.now(UTC), timedelta(hours=1)
    chain = (stage.live / "fullchain.pem").read_text()
    stage.server.suggest(chain, start=now + hour, end=now + 2 * hour)
    assert succeeded(stage.run("obtain"))
    assert stage.serial() == first
    stage.server.suggest(chain, start=now - 2 * hour, end=now - hour)
    assert succeeded(stage.run("obtain"))
    assert stage.serial() == first  # the authority is asked every six hours at most, as it wishes
    stage.forget_suggestion()
    assert succeeded(stage.run("obtain"))
    assert stage.serial() != first
    assert succeeded(stage.run("valid"))


def test_an_authority_that_suggests_nonsense_does_not_end_renewals(stage: Stage) -> None:
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    now, year = datetime.now(UTC), timedelta(days=365)
    chain = (stage.live / "fullchain.pem").read_text()
    stage.server.suggest(chain, start=now + 9 * year, end=now - 9 * year)
    assert succeeded(stage.run("obtain"))
    assert succeeded(stage.run("valid"))


def test_the_order_that_would_lock_the_name_out_is_not_made(stage: Stage) -> None:
    stage.start_nginx()
    stage.configure(acme={"limits": {"issued": [2, 7 * 86400], "failed": [2, 3600]}})
    assert succeeded(stage.run("obtain"))
    assert succeeded(stage.run("obtain"))  # no order, and so not counted
    assert succeeded(stage.run("obtain", "--force"))
    serial, done = stage.serial(), stage.run("obtain", "--force")
    assert done.returncode == 1 and stage.serial() == serial
    assert re.search(r"2 certificates for the same names .* within 168 hours", done.stderr)
    assert re.search(r"the next order is possible after \d{4}-\d\d-\d\d \d\d:\d\d UTC", done.stderr)
    assert succeeded(stage.run("obtain"))  # the timer's run, which is not due, does not fail


def test_orders_at_another_acme_server_do_not_count(stage: Stage) -> None:
    """Trials at Let's Encrypt's staging server do not use up what the other one gives."""
    assert "connection: " in stage.run("obtain").stderr
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    limits = {"issued": [1, 7 * 86400], "failed": [1, 3600]}
    stage.configure(acme={"server": stage.server.url.replace("localhost", "127.0.0.1"), "limits": limits})
    assert succeeded(stage.run("obtain"))
    assert "1 certificates for the same names" in stage.run("obtain", "--force").stderr


def test_failed_challenges_are_counted_and_other_failures_are_not(stage: Stage) -> None:
    stage.configure(acme={"limits": {"failed": [2, 3600]}})  # and no nginx answers
    assert "connection: " in stage.run("obtain").stderr
    assert "connection: " in stage.run("obtain").stderr
    assert "2 orders failed because of their challenges within 1 hours" in stage.run("obtain").stderr
    stage.configure(acme={"limits": {"failed": [2, 3600]}, "names": [DOMAIN, "more.example.org"], "ca": None})
    for _ in range(3):
        assert "is not trusted here" in stage.run("obtain").stderr


def test_an_external_account_whose_key_is_shown_nowhere(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hmac = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    with pebble(tmp_path_factory.mktemp("eab"), accounts={"kid-1": hmac}) as server:
        stage.server = server
        stage.start_nginx()
        stage.configure()
        assert "change: it needs an account that you have there" in stage.run("obtain").stderr
        key = stage.folder / "account.ini"
        key.write_text(f"eab-hmac-key = {hmac[::-1]}\n")
        stage.configure(acme={"account": {"key_id": "kid-1", "file": str(key)}})
        assert "change: fix certificate.account.hmac, or key_id" in stage.run("obtain").stderr
        key.write_text(f"eab-hmac-key = {hmac}\n")
        done = stage.run("obtain")
        assert succeeded(done)
    files = [path for path in stage.folder.rglob("*") if path.is_file() and path != key]
    assert any("letsencrypt.log" in path.name for path in files)
    assert [path for path in files if hmac in path.read_text(errors="replace")] == []
    assert hmac not in done.stdout + done.stderr
