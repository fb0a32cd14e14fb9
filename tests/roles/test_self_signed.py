"""The self-signed certificate as openssl makes it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from artefacts.shipment import Shipment
from engine.facts import FileFact
from engine.resource import Absent, Command
from inventory.model import Certificate, Host, Region, Site
from roles import certificate
from roles.certificate import own, self_signed
from roles.contract import Challenge
from tests.support.facts import DEBIAN_12

LONG = f"{'a' * 63}.{'b' * 63}.example.org"


@pytest.mark.parametrize("domain", ["hk1.example.org", "192.0.2.7", LONG])
def test_it_is_for_the_name_that_clients_use(domain: str, tmp_path: Path) -> None:
    region = Region(id=901, code="hk", name="Hong Kong")
    host = Host(name="hk1", domain=domain, region=region, certificate=Certificate(source="self-signed"))
    site = Site(path="/site.yml", hosts={"hk1": host}, known_hosts="/known_hosts")
    found = self_signed.resources(host, site, DEBIAN_12, Shipment(), Challenge(()))
    [made] = [r for r in found if isinstance(r, Command) and "openssl" in r.argv]
    folder = str(Path(certificate.files(host)[0]).parent)
    subprocess.run(
        [word.replace(folder, str(tmp_path)) for word in made.argv], check=True, capture_output=True
    )
    found = x509.load_pem_x509_certificate((tmp_path / "fullchain.pem").read_bytes())
    [name] = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert str(name.value) == domain
    assert (tmp_path / "privkey.pem").stat().st_mode & 0o077 == 0


def test_only_folders_of_other_names_are_taken_for_former_ones() -> None:
    """A deploy reads the certificate itself as well."""
    region = Region(id=901, code="hk", name="Hong Kong")
    host = Host(name="hk1", domain="now.example.org", region=region)
    chain = own.files(host)[0]
    folder = str(Path(chain).parent.parent)
    paths = [chain, f"{folder}/now.example.org", f"{folder}/then.example.org"]
    fact = FileFact(content=None, sha256="", mode="0700", owner="root", group="root")
    facts = replace(DEBIAN_12, files=dict.fromkeys(paths, fact))
    assert own.of_former_names(host, facts) == [Absent(path=f"{folder}/then.example.org")]
