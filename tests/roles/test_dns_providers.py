"""Each provider's credentials, as certbot's own plugin reads them. No packet is sent."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from artefacts.programs import certbot_with
from artefacts.release import build_release
from inventory.acme import Account, DnsZone
from inventory.checkout import CACHE
from inventory.choices import DnsProviderName
from inventory.secrets import Secret, SecretError
from roles.certificate import account, providers
from tests.roles.cases import load, shipment
from tests.support.facts import DEBIAN_12
from tests.support.releases import unpack

SECRET = "c2VjcmV0LW9mLXRoZS10ZXN0+/=="
# What certbot does before an order: it finds the plugin, parses our arguments, and lets the plugin
# read its credentials.
READ = """
import os, sys
sys.path[:0] = [sys.argv[1]]
from certbot._internal import cli
from certbot._internal.plugins import disco
plugins = disco.PluginsRegistry.find_all()
config = cli.prepare_and_parse_args(plugins, ["certonly", "--non-interactive", *sys.argv[2:]])
plugin = plugins[config.authenticator].init(config)
if hasattr(plugin, "_setup_credentials"):
    plugin._setup_credentials()
    print(dict(plugin.credentials.confobj))
else:
    import boto3
    found = boto3.session.Session().get_credentials()
    print({"access_key": found.access_key, "secret": found.secret_key})
"""


@pytest.mark.parametrize("provider", providers.MODULES)
def test_certbots_plugin_reads_our_credentials(provider: DnsProviderName, tmp_path: Path) -> None:
    facts = replace(DEBIAN_12, python=sys.version_info[:3], arch=platform.machine(), libc=platform.libc_ver())
    release = build_release(certbot_with(provider), facts, cache=CACHE)
    folder, path = tmp_path / "certbot", tmp_path / "credentials"
    unpack(release, folder)
    dns = DnsZone(
        provider=provider, secret="env:X", access_key="KEY-ID", server="192.0.2.1", key_name="derpfleet"
    )
    module = providers.chosen(dns)
    path.write_text(module.credentials(dns, Secret(SECRET)).reveal())
    path.chmod(0o600)
    argv = ["--authenticator", module.PLUGIN, *module.arguments(str(path)), *providers.propagation(module, 7)]
    places = [word for name in ("config", "work", "logs") for word in (f"--{name}-dir", str(tmp_path / name))]
    done = subprocess.run(
        [sys.executable, "-I", "-c", READ, str(folder), *argv, *places],
        env=dict(module.environment(str(path))), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert SECRET in done.stdout
    assert ("KEY-ID" in done.stdout) == (provider in ("route53", "aliyun", "tencent"))


@pytest.mark.parametrize("value", ["c2VjcmV0 ", "secret-of-the-zone", "hmac-sha256:key:c2VjcmV0"])
def test_a_tsig_key_that_is_none_is_refused_before_anything_is_changed(value: str) -> None:
    dns = DnsZone(provider="rfc2136", secret="env:X", server="192.0.2.1", key_name="derpfleet")
    with pytest.raises(SecretError) as caught:
        providers.chosen(dns).credentials(dns, Secret(value))
    assert "it is not a TSIG key in base64" in caught.value.why and value not in str(vars(caught.value))


def test_a_key_of_an_account_that_is_none_is_refused_before_anything_is_changed() -> None:
    host, _, facts = load("bare")
    bound = Account(key_id="kid-1", hmac="env:X")
    certificate = host.certificate.model_copy(update={"account": bound})
    host = host.model_copy(update={"certificate": certificate})
    ship = replace(shipment(host), secrets={"env:X": Secret("two words")})
    with pytest.raises(SecretError) as caught:
        account.resources(host, facts, ship)
    assert "it is not an HMAC key in base64url" in caught.value.why


@pytest.mark.parametrize("value", ['a"b', "a\nb"])
def test_a_secret_that_would_end_its_line_is_refused(value: str) -> None:
    with pytest.raises(SecretError) as caught:
        Secret(value).within('key = "{}"')
    assert "quotation mark or several lines" in caught.value.why and value not in str(vars(caught.value))
