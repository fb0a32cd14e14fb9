"""The files and secrets that the site names are checked before any host is contacted."""

import os

import pytest

import inventory
from tests.support.site_text import GOOD

SITE = """\
defaults:
  ssh: {key: keys/id, sudo_password: 'env:DERPFLEET_TEST_SUDO'}
  docker: {archive: derper.tar}
hosts:
  hk1:
    domain: hk1.example.org
    region: {id: 900, code: hk, name: Hong Kong}
    certificate: {source: manual, fullchain: hk1.pem, key: 'file:hk1.key'}
  sg1:
    domain: sg1.example.org
    region: {id: 901, code: sg, name: Singapore}
    certificate: {source: acme, server: 'https://acme.example.org/dir', ca: acme.pem}
    flavour: docker
    ssh: {key_passphrase: 'cmd:exit 1'}
headscale:
  url: https://hs.example.org
  ssh: {password: 'file:hs.password'}
"""
FILES = ("keys/id", "derper.tar", "hk1.pem", "hk1.key", "acme.pem", "hs.password")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DERPFLEET_TEST_SUDO", "x")
    (tmp_path / "keys").mkdir()
    for name in FILES:
        (tmp_path / name).write_text("x")
    (tmp_path / "site.yml").write_text(SITE)
    return tmp_path


def problems_of(folder, **options):
    site = inventory.load(folder / "site.yml")
    error = inventory.SiteError("x", inventory.file_problems(site, **options))
    return [str(problem).replace(f"{folder}/", "") for problem in error.problems]


def test_all_is_there(folder):
    assert problems_of(folder) == []


def test_all_that_is_missing_is_reported_once_where_it_is_written(folder, monkeypatch):
    monkeypatch.delenv("DERPFLEET_TEST_SUDO")
    for name in FILES:
        (folder / name).unlink()
    assert problems_of(folder) == [
        "line 2: defaults.ssh.key: keys/id: No such file or directory",
        "line 2: defaults.ssh.sudo_password: "
        "the environment variable DERPFLEET_TEST_SUDO is not set, or empty",
        "line 3: defaults.docker.archive: derper.tar: No such file or directory",
        "line 8: hosts.hk1.certificate.fullchain: hk1.pem: No such file or directory",
        "line 8: hosts.hk1.certificate.key: hk1.key: No such file or directory",
        "line 12: hosts.sg1.certificate.ca: acme.pem: No such file or directory",
        "line 17: headscale.ssh.password: hs.password: No such file or directory",
    ]


def test_only_what_the_chosen_hosts_use(folder):
    for name in ("derper.tar", "hk1.pem", "acme.pem"):
        (folder / name).unlink()
    assert problems_of(folder, only=["hk1"]) == [
        "line 8: hosts.hk1.certificate.fullchain: hk1.pem: No such file or directory"
    ]


def test_files_that_cannot_be_read(folder, monkeypatch):
    (folder / "hk1.pem").write_text("")
    (folder / "hk1.key").unlink()
    (folder / "hk1.key").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: path.name != "acme.pem")
    assert problems_of(folder) == [
        "line 8: hosts.hk1.certificate.fullchain: hk1.pem is empty",
        "line 8: hosts.hk1.certificate.key: hk1.key is a directory",
        "line 12: hosts.sg1.certificate.ca: acme.pem: you may not read it",
    ]


def test_a_pipe_is_not_opened(folder):
    (folder / "hk1.key").unlink()
    os.mkfifo(folder / "hk1.key")
    assert problems_of(folder) == []


def test_the_provers_keys_are_looked_for_as_well(folder):
    (folder / "site.yml").write_text(f"prover: env:DERPFLEET_NO_SUCH_PROVER\n{SITE}")
    (problem,) = inventory.file_problems(inventory.load(folder / "site.yml"), only=["hk1"])
    assert (problem.path, problem.line) == ("prover", 1)
    assert "DERPFLEET_NO_SUCH_PROVER is not set" in problem.message


ORDERED = """\
hosts:
  hk1:
    domain: hk1.example.org
    region: {id: 900, code: hk, name: Hong Kong}
    certificate:
      source: acme
      server: https://acme.example.org/directory
      challenge: dns
      dns: {provider: cloudflare, secret: 'env:DERPFLEET_TEST_TOKEN'}
      account: {key_id: kid-1, hmac: 'file:hmac'}
"""


def test_the_secrets_of_orders_are_read_before_a_host_is_contacted(folder, monkeypatch):
    monkeypatch.delenv("DERPFLEET_TEST_TOKEN", raising=False)
    (folder / "site.yml").write_text(ORDERED)
    assert problems_of(folder) == [
        "line 9: hosts.hk1.certificate.dns.secret: "
        "the environment variable DERPFLEET_TEST_TOKEN is not set, or empty",
        "line 10: hosts.hk1.certificate.account.hmac: hmac: No such file or directory",
    ]
    monkeypatch.setenv("DERPFLEET_TEST_TOKEN", "x")
    (folder / "hmac").write_text("x")
    assert problems_of(folder) == []


@pytest.mark.parametrize(
    ("section", "key"),
    [("api_key: 'env:DERPFLEET_TEST_KEY'", "api_key"),
     ("oauth: {id: k, secret: 'env:DERPFLEET_TEST_KEY'}", "oauth.secret")],
)  # fmt: skip
def test_the_key_of_a_policy_is_read_before_a_host_is_contacted(folder, monkeypatch, section, key):
    monkeypatch.delenv("DERPFLEET_TEST_KEY", raising=False)
    (folder / "site.yml").write_text(f"{GOOD}tailscale: {{{section}}}\n")
    words = f"line 6: tailscale.{key}: the environment variable DERPFLEET_TEST_KEY is not set, or empty"
    assert problems_of(folder) == [words]
    monkeypatch.setenv("DERPFLEET_TEST_KEY", "x")
    assert problems_of(folder) == []
