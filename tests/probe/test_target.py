"""Targets from the site file and from an address, and the prover's keys."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path

import pytest

from fleet.shared.parts import deploy_part
from inventory.model import Certificate, Headscale, Host, Region, Relay, Site, Ssh
from probe.keys import ProverKeyError, new_prover, node_public, read_prover
from probe.target import BadAddress, Target
from tests.probe import servers

DEPLOY = partial(deploy_part, servers.HK1)


@pytest.mark.parametrize(
    ("address", "leads_to"),
    [
        ("relay.example.org", ("relay.example.org", 443)),
        ("relay.example.org:3489", ("relay.example.org", 3489)),
        ("203.0.113.7:8443", ("203.0.113.7", 8443)),
        ("[2001:db8::7]:443", ("2001:db8::7", 443)),
    ],
)
def test_addresses_of_relays(address: str, leads_to: tuple[str, int]) -> None:
    target = Target.from_address(address)
    assert (target.domain, target.https_port) == leads_to
    assert (target.expect_admission, target.managed) == ("unknown", False)


@pytest.mark.parametrize(
    "address",
    [
        "", ":443", "https://relay.example.org", "relay.example.org/derp", "relay:port", "me@relay:443",
        "a:70000",
    ],
)
def test_words_that_are_no_address_of_a_relay(address: str) -> None:
    with pytest.raises(BadAddress) as refused:
        Target.from_address(address)
    assert refused.value.exit_code == 4


def site(tmp_path: Path, host: Host, headscale: bool) -> Site:
    control = Headscale(url="https://hs.example.org", ssh=Ssh()) if headscale else None
    return Site(
        path=str(tmp_path / "site.yml"),
        hosts={host.name: host},
        headscale=control,
        known_hosts=str(tmp_path / "known_hosts"),
    )


@pytest.mark.parametrize(
    ("fields", "headscale", "admission", "keys"),
    [
        ({}, False, "open", False),
        ({}, True, "verify", True),
        ({"relay": Relay(open=True)}, True, "open", False),
        ({"relay": Relay(verify_client_url="https://verify.example.org/")}, False, "verify", True),
        ({"flavour": "docker"}, True, "verify", True),
        ({"flavour": "docker"}, False, "open", False),
    ],
)
def test_a_host_of_the_site(
    fields: dict[str, object], headscale: bool, admission: str, keys: bool, tmp_path: Path
) -> None:
    host = Host(
        name="hk1",
        domain="hk1.example.org",
        region=Region(id=900, code="hkg", name="Hong Kong"),
        ipv4="198.51.100.11",
        certificate=Certificate(source="acme", ca=str(tmp_path / "acme.pem")),
        **fields,
    )
    target = Target.from_host(host, site(tmp_path, host, headscale), deploy=DEPLOY, prover=new_prover())
    assert (target.expect_admission, target.prover is not None) == (admission, keys)
    assert (target.ipv4, target.ipv6, target.region_id, target.managed) == ("198.51.100.11", None, 900, True)
    assert target.ca == tmp_path / "acme.pem"


# --- the prover's keys


def test_keys_are_made_once_and_for_our_eyes_only(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "prover.json"
    made = read_prover(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_prover(path).public == made.public
    assert [node_public(key) for key in made.keys] == list(made.public)
    assert all(public.startswith("nodekey:") and len(public) == 72 for public in made.public)
    assert not any(key.reveal() in repr(made) for key in made.keys)
    assert sorted(path.parent.iterdir()) == [path]


def test_each_image_of_each_derper_has_its_own_mesh_key() -> None:
    prover = new_prover()
    assert prover.mesh_key is None
    places = [(name, image) for name in ("hk1", "sg1") for image in ("old", "new")]
    keys = [prover.at(*place).mesh_key for place in (*places, *places)]
    revealed = [key.reveal() for key in keys if key]
    assert revealed[:4] == revealed[4:]
    assert len(set(revealed)) == 4
    assert {len(key) for key in revealed} == {64}
    assert prover.at("hk1", "old").public == prover.public


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"PrivateKeys": ["privkey:00"]}',
        '{"PrivateKeys": ["privkey:zz", "privkey:00"]}',
        '{"PrivateKeys": [1, 2]}',
    ],
)
def test_a_key_file_that_holds_something_else(content: str, tmp_path: Path) -> None:
    path = tmp_path / "prover.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ProverKeyError, match="does not hold two keys"):
        read_prover(path)


def test_a_key_file_that_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "prover.json"
    read_prover(path)
    path.chmod(0o644)
    with pytest.raises(ProverKeyError) as refused:
        read_prover(path)
    assert refused.value.next == f"chmod 600 {path}"
