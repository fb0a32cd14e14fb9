"""A CA and one P-256 server certificate, smaller than one from a public CA: both servers get the
same."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def make(folder: Path, host: str, *, begin_days: float = -1) -> Path:
    """Write `<host>.crt` and `<host>.key` under `folder`, as -certmode manual wants them; returns
    the CA's PEM file.

    They are in force for 31 days, from `begin_days` after now on.
    """
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _builder("bench CA", ca_key.public_key(), begin_days).add_extension(
        x509.BasicConstraints(True, None), critical=True
    )
    leaf = _builder(host, key.public_key(), begin_days).add_extension(
        x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{host}.crt").write_bytes(leaf.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / f"{host}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "ca.pem").write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return folder / "ca.pem"


def _builder(subject: str, key: ec.EllipticCurvePublicKey, begin_days: float) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.timezone.utc)  # noqa: UP017 - live tests of the relay run on 3.10 too
    begin = now + dt.timedelta(days=begin_days)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench CA")])
    end, serial = begin + dt.timedelta(days=31), x509.random_serial_number()
    return x509.CertificateBuilder(issuer, name, key, serial, begin, end)
