"""The facts in a relay's certificates. Bytes in, words out; no I/O, time is an argument."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from relay.client import find_meta_key

LOW_SHARE = 0.2
"""A certificate with less than this share of its life left was not renewed: certbot renews at a
third."""


@dataclass(frozen=True)
class Leaf:
    """The relay's own certificate."""

    names: tuple[str, ...]
    issuer: str
    not_before: datetime
    not_after: datetime
    sha256: str

    def share_left(self, now: datetime) -> float:
        """Return the share of its life that is left: 1 new, 0 expired, negative after that."""
        return (self.not_after - now) / max(self.not_after - self.not_before, timedelta(seconds=1))

    def left(self, now: datetime) -> str:
        """Return `61 of 90 days left (68 %)`, for people.

        In hours if it lives less than two days.
        """
        life = self.not_after - self.not_before
        unit, word = (
            (timedelta(days=1), "days") if life >= timedelta(days=2) else (timedelta(hours=1), "hours")
        )
        return (
            f"{(self.not_after - now) / unit:.0f} of {life / unit:.0f} {word} left "
            f"({100 * self.share_left(now):.0f} %)"
        )


@dataclass(frozen=True)
class Chain:
    """The certificates that the server presented.

    `count` leaves out the fast start's extra certificate; `derp_key` is the relay key in that one.
    """

    leaf: Leaf
    count: int
    derp_key: bytes | None


def read_chain(ders: Sequence[bytes]) -> Chain:
    """Read the presented certificates, DER, leaf first.

    Raises ValueError when the leaf cannot be read.
    """
    try:
        leaf = _read_leaf(ders[0])
    except (
        TypeError,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise ValueError(str(error)) from None
    ordinary = [der for der in ders if find_meta_key([der]) is None]
    return Chain(leaf, len(ordinary), find_meta_key(ders))


def _read_leaf(der: bytes) -> Leaf:
    certificate = x509.load_der_x509_certificate(der)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = tuple(names.get_values_for_type(x509.DNSName)) + tuple(
            map(str, names.get_values_for_type(x509.IPAddress))
        )
    except x509.ExtensionNotFound:
        found = ()
    return Leaf(
        found,
        _common_name(certificate.issuer),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        hashlib.sha256(der).hexdigest(),
    )


def _common_name(name: x509.Name) -> str:
    for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        for attribute in name.get_attributes_for_oid(oid):
            return str(attribute.value)
    return name.rfc4514_string()
