"""An ACME server that gives certificates to accounts only, as ZeroSSL and Google do (EAB)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

import lab
from tests.e2e.desk import Desk
from tests.e2e.steps import settled
from tests.support.labs import own_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
Edit = Callable[..., None]
KEY_ID, HMAC = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    with own_lab(tmp_path_factory, "account", only=["hk1", "hs1", "acme"]) as own:
        own.acme.start(accounts={KEY_ID: HMAC})
        yield own


def account(desk: Desk, hmac: str) -> dict[str, object]:
    """Return the settings with an account; its key is in a file beside the site file."""
    (desk.stage.root / "hmac").write_text(hmac)
    return {"source": "auto", "account": {"key_id": KEY_ID, "hmac": "file:hmac"}}


@pytest.mark.parametrize(
    ("hmac", "words"),
    [("", "set certificate.account"), (HMAC[::-1], "fix certificate.account.hmac, or key_id")],
)
def test_without_an_account_it_is_said_what_is_missing(
    desk: Desk, edited: Edit, hmac: str, words: str
) -> None:
    edited("hk1", certificate=account(desk, hmac) if hmac else {})
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 1
    assert words in str(ran.why()), ran.why()


def test_a_relay_with_an_account_whose_key_is_shown_nowhere(desk: Desk, edited: Edit) -> None:
    edited("hk1", certificate=account(desk, HMAC))
    ran = settled(desk)
    [chosen] = ran.of("chosen", "hk1")
    assert chosen["text"] == "certificate.source auto is acme here: server is set"
    renewed = desk.run("renew", "--host", "hk1", "--force")
    assert renewed.returncode == 0, renewed.stdout + renewed.stderr
    assert HMAC not in json.dumps(ran.events) + ran.errors + renewed.stdout + renewed.stderr
    where = ["grep", "-rlF", "--", HMAC, "/etc", "/opt", "/var/lib", "/var/log", "/tmp"]
    holders = desk.stage.run_in("hk1", where, check=False).stdout.split()
    modes = desk.stage.run_in("hk1", ["stat", "--format=%a %U", *holders]).stdout.splitlines()
    assert "/etc/derpfleet/account/certbot.ini" in holders and set(modes) == {"600 root"}, holders


def test_the_key_goes_with_the_account(desk: Desk, edited: Edit) -> None:
    edited("hk1", certificate={})
    settled(desk)
    assert desk.stage.run_in("hk1", ["test", "-e", "/etc/derpfleet/account"], check=False).returncode
    renewed = desk.invoke("renew", "--host", "hk1", "--force")
    assert renewed.code == 0, renewed.why()  # certbot's account there is bound for good
