import datetime as dt
import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from relay.keys.certificate import first_certificate, parse_certificate
from relay.keys.meta_certificate import new_meta_cert
from relay.keys.self_signed import make_self_signed

KEY = ec.generate_private_key(ec.SECP256R1())


def make(names=(), until=dt.datetime(2049, 5, 6, 7, 8, 9), extensions=()):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority with a rather long name, Ltd.")])
    builder = x509.CertificateBuilder(
        name, name, KEY.public_key(), 2**150 + 1, dt.datetime(2026, 1, 2, 3, 4, 5), until
    )
    general = [
        x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() or ":" in n else x509.DNSName(n)
        for n in names
    ]
    if general:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([*general, x509.RFC822Name("who@example.org")]), critical=False
        )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def unix(*moment):
    return dt.datetime(*moment, tzinfo=dt.timezone.utc).timestamp()


@pytest.mark.parametrize(
    "until", [(2049, 5, 6, 7, 8, 9), (2051, 5, 6, 7, 8, 9)], ids=["UTCTime", "GeneralizedTime"]
)
def test_names_and_times(until):
    usage = x509.BasicConstraints(ca=True, path_length=0)
    info = parse_certificate(
        make(
            ["Derp.example.org", "*.example.net", "203.0.113.7", "2001:db8::7"], dt.datetime(*until), [usage]
        )
    )
    assert info.names == ("derp.example.org", "*.example.net", "203.0.113.7", "2001:db8::7")
    assert (info.not_before, info.not_after) == (unix(2026, 1, 2, 3, 4, 5), unix(*until))


@pytest.mark.parametrize(
    "hostname, fits",
    [
        ("derp.example.org", True),
        ("DERP.example.org.", True),
        ("a.example.net", True),
        ("a.b.example.net", False),
        ("example.net", False),
        ("203.0.113.7", True),
        ("2001:DB8:0::7", True),
        ("203.0.113.8", False),
        ("org", False),
    ],
)
def test_for_whom(hostname, fits):
    assert (
        parse_certificate(make(["derp.example.org", "*.example.net", "203.0.113.7", "2001:db8::7"])).is_for(
            hostname
        )
        is fits
    )


def test_certificates_of_our_own():
    pem = make_self_signed("203.0.113.7", 1_790_000_000)[0].decode()
    info = parse_certificate(first_certificate(pem))
    assert info.is_for("203.0.113.7") and info.not_before == 1_790_000_000 - 3600
    assert parse_certificate(new_meta_cert(bytes(32), 1_790_000_000)).names == ()
    assert first_certificate(pem) == ssl.PEM_cert_to_DER_cert(pem)


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30\x00",
        b"\x30\x05ab",
        b"\x30\x03\x30\x01\x00",
        make()[:-1],
        make() + b"\x05\x00",
        b"\x02\x01\x01",
        make().replace(b"\x17\x0d26", b"\x16\x0d26"),
    ],
)
def test_what_is_no_certificate(der):
    with pytest.raises(ValueError, match=r"no X\.509 certificate"):
        parse_certificate(der)


def test_no_pem():
    with pytest.raises(ValueError, match="no certificate"):
        first_certificate("-----BEGIN PRIVATE KEY-----")


@given(st.integers(0, 400), st.binary(max_size=3))
def test_a_damaged_certificate_is_read_or_refused(position, instead):
    der = bytearray(make(["derp.example.org"]))
    der[position : position + len(instead)] = instead
    try:
        parse_certificate(bytes(der))
    except ValueError as e:
        assert "no X.509 certificate" in str(e)
