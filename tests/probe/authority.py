"""A certificate authority for tests: a root, an intermediate, and leaves, each with the fault that
a test wants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """Paths of a chain (as the server presents it) and its key."""

    chain: Path
    key: Path


class Authority:
    """An authority. `ca` is the root's PEM file, which a client trusts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._issued = 0
        self.ca = folder / "ca.pem"
        self._root_key, self._key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self._root = _certificate(
            "Test Root", None, self._root_key, self._root_key, (), -DAY, 3650 * DAY, ca=True
        )
        self._intermediate = _certificate(
            "Test Intermediate", self._root, self._root_key, self._key, (), -DAY, 365 * DAY, ca=True
        )
        self._stale = _certificate(
            "Test Intermediate", self._root, self._root_key, self._key, (), -99 * DAY, -DAY, ca=True
        )
        self.ca.write_bytes(_pem(self._root))

    def issue(
        self,
        name: str,
        *,
        start: timedelta = -10 * DAY,
        end: timedelta = 80 * DAY,
        full: bool = True,
        stale: bool = False,
        self_signed: bool = False,
    ) -> Issued:
        """Issue a leaf for one DNS name or address, valid from now+start to now+end.

        `full`: with the intermediate behind it; `stale`: with one that has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        between = self._stale if stale else self._intermediate
        issuer, issuer_key = (None, key) if self_signed else (between, self._key)
        leaf = _certificate(name, issuer, issuer_key, key, (name,), start, end)
        self._issued += 1
        chain, key_path = (self.folder / f"{self._issued}-{name}.{suffix}" for suffix in ("chain", "key"))
        chain.write_bytes(_pem(leaf) + (_pem(between) if full and not self_signed else b""))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Issued(chain, key_path)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _certificate(
    name: str,
    issuer: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    alternatives: tuple[str, ...],
    start: timedelta,
    end: timedelta,
    *,
    ca: bool = False,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(
            issuer.subject if issuer else subject, subject, key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(now + start)
        .not_valid_after(now + end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if alternatives:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general(each) for each in alternatives]), critical=False
        )
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
