import hashlib
import json
import ssl
import stat
from types import SimpleNamespace

import pytest
from cryptography import x509

from relay import flags
from relay.keys import self_signed
from relay.keys.node_key import NodeKey
from relay.keys.self_signed import cert_paths, ensure_self_signed, make_self_signed, pin_of
from relay.log import Log
from relay.reload import Reloader


def test_files_are_named_as_derper_names_them(tmp_path):
    assert [p.name for p in cert_paths(str(tmp_path), "derp.example.org")] == [
        "derp.example.org.crt",
        "derp.example.org.key",
    ]
    assert cert_paths("/d", "2001:db8::7")[0].name == "2001db87.crt"
    assert cert_paths("/d", "../../etc/x")[0].name == "....etcx.crt"


@pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8::7"])
def test_a_certificate_for_an_address(address):
    pem, _ = make_self_signed(address, 1_790_000_000)
    cert = x509.load_pem_x509_certificate(pem)
    san = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(a) for a in san.get_values_for_type(x509.IPAddress)] == [address]
    usage = cert.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (True, True, False)
    assert cert.subject.rfc4514_string() == f"CN={address}" and cert.issuer == cert.subject
    assert (
        cert.not_valid_before_utc.timestamp()
        < 1_790_000_000
        < cert.not_valid_after_utc.timestamp() - 9 * 365 * 86400
    )


def test_made_once_and_loadable(tmp_path):
    directory = tmp_path / "certs"
    assert ensure_self_signed(str(directory), "203.0.113.7", 1_790_000_000)
    crt, key = cert_paths(str(directory), "203.0.113.7")
    assert [stat.S_IMODE(p.stat().st_mode) for p in (directory, crt, key)] == [0o700, 0o644, 0o600]
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(crt, key)
    before = crt.read_bytes()
    assert not ensure_self_signed(str(directory), "203.0.113.7", 1_790_000_000)
    assert crt.read_bytes() == before


def test_only_for_addresses_and_never_beside_a_half(tmp_path):
    assert not ensure_self_signed(str(tmp_path), "derp.example.org", 0)
    (tmp_path / "203.0.113.7.key").touch()
    assert not ensure_self_signed(str(tmp_path), "203.0.113.7", 0)
    assert [p.name for p in tmp_path.iterdir()] == ["203.0.113.7.key"]


def test_the_pin_is_the_lower_case_hash_of_the_leaf(tmp_path):
    pem = make_self_signed("203.0.113.7", 0)[0].decode()
    other = make_self_signed("203.0.113.8", 0)[0].decode()
    pin = "sha256-raw:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    assert pin_of(pem + other) == pin
    assert json.loads(self_signed.map_node("203.0.113.7", pin))["CertName"] == pin
    with pytest.raises(ValueError, match="no certificate"):
        pin_of("-----BEGIN PRIVATE KEY-----")


def test_the_map_node_with_the_pin_is_logged_at_every_start(tmp_path, caplog):
    caplog.set_level("INFO")
    config = flags.parse(["-c=k", "-certmode=manual", f"-certdir={tmp_path}", "-hostname=127.0.0.1"])
    clients = SimpleNamespace(key=NodeKey.generate())
    nodes = []
    for _ in range(2):
        caplog.clear()
        Reloader(config, clients, Log("server")).load()
        nodes += [record.fields["node"] for record in caplog.records if "map node" in record.message]
    pin = pin_of(cert_paths(str(tmp_path), "127.0.0.1")[0].read_text())
    assert [json.loads(node)["CertName"] for node in nodes] == [pin, pin]
