"""files/certificate.py as a host runs it: our shipped certbot, a real ACME server, a real nginx."""

from __future__ import annotations

import grp
import importlib
import json
import os
import re
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from inventory.checkout import CHECKOUT
from tests.files.conftest import DOMAIN, HTTPS, PROGRAM, Stage, succeeded
from tests.support.acme import pebble


def test_first_certificate_then_reuse(stage: Stage) -> None:
    stage.start_nginx()
    assert "No such file" in stage.run("valid").stderr
    assert succeeded(stage.run("obtain"))
    assert succeeded(stage.run("valid"))
    first = stage.serial()
    assert succeeded(stage.run("obtain"))
    assert stage.serial() == first


def test_a_forced_renewal_is_served_without_a_restart(stage: Stage) -> None:
    stage.deploy()
    first, pid, began = stage.serial(), (stage.folder / "nginx.pid").read_text(), time.time()
    assert stage.run("younger", str(began)).returncode == 1
    assert succeeded(stage.run("renew", "--force"))
    stage.await_served()
    assert succeeded(stage.run("younger", str(began)))
    assert stage.serial() != first
    assert (stage.folder / "nginx.pid").read_text() == pid


def test_an_order_in_the_sandbox_is_deployed_by_another_command(stage: Stage) -> None:
    """The unit of the renewal orders where nothing can be reloaded (M6)."""
    stage.deploy()
    reloaded = stage.folder / "reloaded"
    stage.configure(reload=["touch", str(reloaded)])
    assert succeeded(stage.run("deploy", "--unless-served"))
    assert succeeded(stage.run("obtain", "--force"))
    assert stage.run("served").returncode == 1
    assert not reloaded.exists()
    stage.configure()
    assert succeeded(stage.run("deploy", "--unless-served"))
    stage.await_served()


def test_a_certificate_that_is_not_served_is_a_loud_failure(stage: Stage) -> None:
    stage.deploy()
    stage.configure(test=None, reload=["false"])
    done = stage.run("renew", "--force")
    assert done.returncode == 1
    assert re.search(
        r"the new certificate is NOT served: \S+ serves the certificate \w+…, on disk is \w+…\nfalse: ",
        done.stderr,
    )


def test_a_clock_that_is_set_ahead_does_not_end_the_wait_for_the_served_certificate(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    (stage.folder / "https.conf").write_text(HTTPS.format(https=stage.https, live=stage.live))
    stage.configure(
        reload=["sh", "-c", f"(sleep 1; kill -HUP $(cat {stage.folder}/nginx.pid)) >/dev/null 2>&1 &"]
    )
    stepped = "import itertools, time\nreal, steps = time.time, itertools.count(0, 10)\n"
    stepped += "time.time = lambda: real() + next(steps)\n"
    (stage.folder / "sitecustomize.py").write_text(stepped)
    monkeypatch.setenv("PYTHONPATH", str(stage.folder))
    assert succeeded(stage.run("deploy"))


def test_nginx_is_not_reloaded_while_its_configuration_is_broken(stage: Stage) -> None:
    stage.deploy()
    foreign, reloaded = stage.folder / "https-foreign.conf", stage.folder / "reloaded"
    foreign.write_text("servr {}\n")
    stage.configure(reload=["touch", str(reloaded)])
    done = stage.run("renew", "--force")
    assert done.returncode == 1
    assert re.match(
        r"the new certificate is NOT served: 127.0.0.1:\d+ serves the certificate \w+…, on disk is \w+…\n",
        done.stderr,
    )
    said = re.escape("nginx was not reloaded, because its configuration is broken:")
    said += r"\n.*\[emerg\] .*unknown directive \"servr\" in "
    assert re.search(said + re.escape(str(foreign)), done.stderr)
    assert "\nchange: fix it until `nginx -t` passes; until then the old certificate is served" in done.stderr
    assert not reloaded.exists()
    foreign.unlink()
    stage.configure()
    assert succeeded(stage.run("renew"))
    stage.await_served()


def test_a_port_without_a_listener_is_reported(stage: Stage) -> None:
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    assert f"127.0.0.1:{stage.https} on this host: [Errno 111]" in stage.run("served").stderr


@pytest.mark.parametrize(("listen", "at"), [("127.0.0.2", "127.0.0.2"), ("[::1]", "[::1]")])
def test_a_front_that_does_not_listen_on_127_0_0_1_is_asked_where_it_listens(
    stage: Stage, listen: str, at: str
) -> None:
    """Beside servers that have the public address only, as hosting panels write them (K3a)."""
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    text = HTTPS.format(https=stage.https, live=stage.live).replace("127.0.0.1", listen)
    (stage.folder / "https.conf").write_text(text)
    assert stage.run("deploy").returncode == 1
    stage.configure(served_at=f"{at}:{stage.https}")
    assert succeeded(stage.run("deploy"))
    stage.await_served()


@pytest.mark.parametrize(("says", "words"), [("disabled", ""), ("enabled", "is NOT served: 127.0.0.1:")])
def test_a_withdrawn_relay_need_serve_nothing_but_one_that_is_down_must(
    stage: Stage, says: str, words: str
) -> None:
    stage.configure(withdrawal={"argv": ["echo", says], "says": "disabled"})
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    first = stage.serial()
    renewed = stage.run("renew", "--force")
    assert stage.serial() != first
    assert words in renewed.stderr
    assert renewed.returncode == bool(words)
    if words:
        assert stage.run("served").returncode == 1
    else:
        stage.await_served()


def test_a_refusal_is_explained_and_the_old_certificate_stays(stage: Stage) -> None:
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    first = stage.serial()
    stage.forget_account()
    # nginx serves another folder
    stage.configure(acme={"authenticator": ["--webroot", "--webroot-path", str(stage.folder)]})
    done = stage.run("obtain", "--force")
    assert done.returncode == 1
    assert done.stderr.startswith("no certificate: unauthorized: ")
    assert (
        "\nchange: the name leads to another machine, or something in front of this host answers port 80\n"
        in done.stderr
    )
    assert stage.serial() == first


def test_a_closed_port_80(stage: Stage) -> None:
    done = stage.run("obtain")
    assert done.returncode == 1
    assert done.stderr.startswith('no certificate: connection: Get "http://hk1.example.org:')
    assert "\nchange: port 80 must be reachable from everywhere" in done.stderr


def test_an_untrusted_acme_server_is_reported(stage: Stage) -> None:
    stage.configure(acme={"ca": None})
    done = stage.run("obtain")
    assert done.returncode == 1
    assert "certificate.ca" in done.stderr


def test_another_acme_server_replaces_the_certificate(stage: Stage) -> None:
    stage.start_nginx()
    assert succeeded(stage.run("obtain"))
    first, other = stage.serial(), stage.server.url.replace("localhost", "127.0.0.1")
    stage.configure(acme={"server": other})
    assert stage.run("valid").stderr.strip().endswith(f"is from {stage.server.url}, not from {other}")
    assert succeeded(stage.run("obtain"))
    assert succeeded(stage.run("valid"))
    assert stage.serial() != first


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the program as a module; `tmp_path` has a certificate, with 80 of 90 days left."""
    monkeypatch.syspath_prepend(str(CHECKOUT / "files"))
    write_certificate(tmp_path, days=90, left=80)
    return importlib.import_module("certificate")


def configured(folder: Path, **more: object) -> dict[str, object]:
    """Return a configuration for the certificate in `folder`; the keys not in `more` are None."""
    unset = ("acme", "copies", "test", "reload", "withdrawal", "served_at", "patience_s")
    paths = {"fullchain": str(folder / "fullchain.pem"), "key": str(folder / "privkey.pem")}
    return dict.fromkeys(unset) | {"domain": DOMAIN} | paths | more


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    folder = tmp_path / "copies"
    folder.mkdir()
    return folder


def copied_to(folder: Path) -> dict[str, str]:
    return {"directory": str(folder), "group": grp.getgrgid(os.getgid()).gr_name}


def test_what_is_checked_is_what_the_relay_gets(
    certificate: ModuleType, tmp_path: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that certbot left behind in the sandbox may replace the key during the copying."""
    (tmp_path / "secret").write_text("another secret")
    key = tmp_path / "privkey.pem"
    good = key.read_bytes()
    config = configured(tmp_path, acme={"server": "x", "limits": {}}, copies=copied_to(copies))
    real = certificate.unfit

    def checked_and_then_replaced(chain: str, key_: str) -> str:
        said: str = real(chain, key_)
        key.unlink()
        key.symlink_to(tmp_path / "secret")
        return said

    monkeypatch.setattr(certificate, "unfit", checked_and_then_replaced)
    certificate.HostCertificate(config).copy()
    assert (copies / f"{DOMAIN}.key").read_bytes() == good
    with pytest.raises(certificate.Problem, match=f"{tmp_path}/fullchain.pem and {key} are no certificate"):
        certificate.HostCertificate(config).copy()
    assert sorted(path.name for path in copies.iterdir()) == [f"{DOMAIN}.crt", f"{DOMAIN}.key"]


def test_a_name_of_before_leaves_no_copy_of_its_key(
    certificate: ModuleType, tmp_path: Path, copies: Path
) -> None:
    for name in ("old.example.org", DOMAIN):
        host = certificate.HostCertificate(configured(tmp_path, domain=name, copies=copied_to(copies)))
        assert host.copied() == "the relay's copies differ"
        host.copy()
        assert host.copied() == ""
    assert sorted(path.name for path in copies.iterdir()) == [f"{DOMAIN}.crt", f"{DOMAIN}.key"]
    assert certificate.HostCertificate(configured(tmp_path)).copied() == ""


def test_an_old_worker_that_answers_once_more_does_not_fail_a_renewal(
    certificate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old and new workers of nginx accept in any order, for about 0.1 s after a reload."""
    config = configured(tmp_path, reload=["true"], patience_s=3, served_at="127.0.0.1:443")
    host = certificate.HostCertificate(config)
    old, new = b"old", ssl.PEM_cert_to_DER_cert((tmp_path / "fullchain.pem").read_text())
    answers = iter((old, new, old))
    monkeypatch.setattr(host, "presented", lambda: next(answers))
    host.deploy(hook=False)
    monkeypatch.setattr(host, "presented", lambda: old)
    with pytest.raises(certificate.Problem, match="the new certificate is NOT served"):
        host.deploy(hook=False)


def test_standalone_and_the_relays_own_copies(stage: Stage) -> None:
    folder, port = stage.folder / "copies", stage.server.http_port
    folder.mkdir()
    group = stage.folder.stat().st_gid
    stage.configure(
        copies={"directory": str(folder), "group": group},
        acme={"authenticator": ["--standalone", "--http-01-port", str(port)]},
    )
    assert succeeded(stage.run("obtain"))
    assert stage.run("copied").returncode == 1
    assert succeeded(stage.run("deploy", "--hook"))
    assert succeeded(stage.run("copied"))
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        f"{DOMAIN}.crt": 0o640,
        f"{DOMAIN}.key": 0o640,
    }
    (folder / f"{DOMAIN}.key").write_text("damaged")
    assert stage.run("copied").returncode == 1
    assert succeeded(stage.run("copy"))
    assert succeeded(stage.run("copied"))
    ssl.create_default_context().load_cert_chain(folder / f"{DOMAIN}.crt", folder / f"{DOMAIN}.key")


def test_transient_errors_of_an_acme_server_are_retried(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pebble(tmp_path_factory.mktemp("moody"), moody=True) as moody:
        stage.server = moody
        stage.configure()
        stage.start_nginx()
        assert succeeded(stage.run("obtain"))


@pytest.mark.parametrize(
    ("days", "left", "words"),
    [(90, 30, ""), (90, 10, "ends on"), (6, 3, ""), (6, 1, "ends on")],
)
def test_overdue_is_a_share_of_the_lifetime(stage: Stage, days: int, left: int, words: str) -> None:
    stage.live.mkdir(parents=True)
    write_certificate(stage.live, days=days, left=left)
    problem = stage.run("valid").stderr
    assert (words or "is from somewhere else") in problem


def test_another_name_is_noticed(stage: Stage) -> None:
    stage.live.mkdir(parents=True)
    write_certificate(stage.live, days=90, left=80, name="other.example.org")
    assert f"is not for {DOMAIN}" in stage.run("valid").stderr


def test_a_certificate_with_names_of_other_sites_is_used_and_left_to_them(stage: Stage) -> None:
    """Order nothing: a certificate for our name alone would take theirs away."""
    stage.start_nginx()
    acme = json.loads((stage.folder / "certificate.json").read_text())["acme"]
    names = ["--cert-name", DOMAIN, "--domain", DOMAIN, "--domain", "www.example.org"]
    order = ["certonly", "--non-interactive", "--agree-tos", "--register-unsafely-without-email"]
    order += ["--server", acme["server"]]
    order += ["--config-dir", str(stage.folder / "letsencrypt")]
    argv = [sys.executable, "-I", stage.certbot, *order, *names, *acme["authenticator"]]
    env = {**os.environ, "REQUESTS_CA_BUNDLE": acme["ca"]}
    subprocess.run(argv, check=True, capture_output=True, env=env)
    stage.serve_https()
    assert succeeded(stage.run("valid"))
    theirs = stage.serial()
    assert succeeded(stage.run("deploy"))
    assert succeeded(stage.run("renew"))
    refused = stage.run("renew", "--force")
    assert refused.returncode == 1
    assert (
        "a new one was asked for: it is for www.example.org, too, and is left to the program that ordered it"
        in refused.stderr
    )
    assert f"certbot renew --cert-name {DOMAIN}" in refused.stderr
    assert stage.serial() == theirs


@pytest.mark.parametrize(
    ("printed", "kind"),
    [
        (
            "An unexpected error occurred:\n"
            "Error creating new order :: too many certificates (5) already issued for this exact set",
            "rateLimited",
        ),
        ("  Type:   dns\n  Detail: DNS problem: NXDOMAIN looking up A for hk1.example.org", "dns"),
        ("  Type:   caa\n  Detail: CAA record for example.org prevents issuance", "caa"),
        (
            "urn:ietf:params:acme:error:externalAccountRequired"
            " :: The request must include a value for the EAB field",
            "externalAccountRequired",
        ),
        (
            "Unable to register an account with ACME server. Error returned by the ACME server: "
            "[External Account Binding] Invalid MAC on JWS request",
            "account",
        ),
        (
            "Unable to register an account with ACME server. Error returned by the ACME server: "
            "the field 'kid' references a key that is not known to the ACME server",
            "account",
        ),
        (
            "Unable to register an account with ACME server. Error returned by the ACME server: new terms",
            "userActionRequired",
        ),
        # as the plugins of our locks say it
        ("Received response from server: REFUSED", "zoneKey"),
        (
            "Error determining zone_id: 9109 Invalid access token. Please confirm that you have supplied "
            "valid Cloudflare API credentials. (Did you enter a valid Cloudflare Token?)",
            "zoneKey",
        ),
        (
            "An error occurred (InvalidClientTokenId) when calling the ListHostedZones operation: The "
            "security token included in the request is invalid.",
            "zoneKey",
        ),
        ("Aliyun DNS DescribeDomains failed (InvalidAccessKeyId.NotFound)", "zoneKey"),
        ("Aliyun DNS DescribeDomains failed (Forbidden.RAM)", "zoneKey"),
        ("Tencent DNSPod DescribeDomainList failed (AuthFailure.SecretIdNotFound)", "zoneKey"),
        ("Unable to determine base domain for hk1.example.org using names: ['hk1.example.org'].", "zone"),
        ("Unable to determine zone_id for hk1.example.org using zone names: ['example.org'].", "zone"),
        ("Unable to find a Route53 hosted zone for _acme-challenge.hk1.example.org", "zone"),
        ("No managed Aliyun DNS zone found for _acme-challenge.hk1.example.org", "zone"),
        ("No managed Tencent DNSPod zone found for _acme-challenge.hk1.example.org", "zone"),
        ("Encountered error when making query: The DNS operation timed out.", "zoneServer"),
        ("Network error contacting the Cloudflare API while looking up the zone", "zoneServer"),
        ("Tencent DNSPod DescribeDomainList failed (network error)", "zoneServer"),
        ('Could not connect to the endpoint URL: "https://route53.amazonaws.com/"', "zoneServer"),
    ],
)
def test_reasons(printed: str, kind: str) -> None:
    program_ = load_program()
    text = program_["order"].__globals__["explain"]("Saving debug log to /x\n" + printed)
    assert text.startswith(f"no certificate: {kind}: ")
    assert f"\nchange: {program_['order'].__globals__['ADVICE'][kind]}\n" in text
    assert "Saving debug log" not in text


@pytest.mark.parametrize(
    "python",
    sorted(Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python3")),
    ids=lambda path: path.parts[-3],
)
def test_every_python_reads_it(python: Path) -> None:
    done = subprocess.run(
        [str(python), "-I", "-B", str(PROGRAM), "--help"], capture_output=True, text=True, check=True
    )
    assert "one host's certificate" in done.stdout


def load_program() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "certificate", "__file__": str(PROGRAM)}
    exec(compile(PROGRAM.read_text(), str(PROGRAM), "exec"), names)
    return names


def write_certificate(folder: Path, *, days: int, left: int, name: str = DOMAIN) -> None:
    """Write a certificate with a lifetime of `days`, of which `left` are left."""
    end = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + left * 86400))
    start = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + (left - days) * 86400))
    config = f"[ca]\ndefault_ca=x\n[x]\ndatabase={folder}/db\nnew_certs_dir={folder}\n"
    config += f"serial={folder}/serial\ndefault_md=sha256\npolicy=p\ncopy_extensions=copy\n"
    config += "[p]\ncommonName=supplied\n[req]\ndistinguished_name=n\n[n]\n"
    config += f"[e]\nsubjectAltName=DNS:{name}\n"
    (folder / "openssl.cnf").write_text(config)
    (folder / "db").write_text("")
    (folder / "serial").write_text("01\n")
    key, request = str(folder / "privkey.pem"), str(folder / "request.pem")
    conf = ["-config", str(folder / "openssl.cnf")]
    ask = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request]
    ask += ["-subj", f"/CN={name}", "-reqexts", "e"]
    sign = ["ca", "-batch", "-selfsign", "-keyfile", key, "-in", request, "-notext"]
    sign += ["-out", str(folder / "fullchain.pem")]
    for words in (ask, [*sign, "-startdate", start, "-enddate", end]):
        subprocess.run(["openssl", *words, *conf], check=True, capture_output=True)
