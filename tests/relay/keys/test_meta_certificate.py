import hashlib
import ssl
from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509

from relay.keys.meta_certificate import build_meta_cert, new_meta_cert, pem_of

S_PUBLIC = bytes.fromhex("07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c")
VECTOR = bytes.fromhex(
    "3082016330820115a003020102020102300506032b657030523150304e06035504031347646572706b65793037613337"
    "636263313432303933633862373535646331623130653836636234323633373461643136616138353365643062646663"
    "3062326238366431633763301e170d3236303130313030303030305a170d3236303330323030303030305a3052315030"
    "4e06035504031347646572706b6579303761333763626331343230393363386237353564633162313065383663623432"
    "36333734616431366161383533656430626466633062326238366431633763302a300506032b6570032100cd14b37f95"
    "6e953194ff7fb73b3d81dcc561d61a7538094b7c3e1a643ee5f3aaa310300e300c0603551d130101ff04023000300506"
    "032b6570034100ade94560da346e23bf0e5edabbd8afb25ea378f2008608e9d570a902bd1f2939891fd4e745b64acf39"
    "a7a96ed5f8f63b4fa7ebc4711e416b1c1bebe3744d5402"
)


def test_the_vector_to_the_byte():
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    der = build_meta_cert(S_PUBLIC, bytes(range(0x80, 0xA0)), start, start + timedelta(days=60))
    assert der == VECTOR
    assert (
        len(der) == 359
        and hashlib.sha256(der).hexdigest()
        == "2cdc76020aea62567bef0be9274aac17c94fc590d68b9f4c0c061b03c304c1bd"
    )


@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_a_new_one_is_what_clients_look_for():
    now = 1_790_000_000.5
    cert = x509.load_der_x509_certificate(new_meta_cert(S_PUBLIC, now))
    assert cert.subject.rfc4514_string() == f"CN=derpkey{S_PUBLIC.hex()}" and cert.issuer == cert.subject
    assert cert.serial_number == 2 and cert.version is x509.Version.v3
    assert cert.not_valid_before_utc.timestamp() == 1_790_000_000 - 30 * 86400
    assert cert.not_valid_after_utc.timestamp() == 1_790_000_000 + 30 * 86400
    (extension,) = cert.extensions
    assert extension.critical and extension.value == x509.BasicConstraints(ca=False, path_length=None)
    cert.verify_directly_issued_by(cert)


def test_each_run_has_its_own_throw_away_key():
    assert new_meta_cert(S_PUBLIC, 0.0) != new_meta_cert(S_PUBLIC, 0.0)


def test_pem_round_trip():
    assert ssl.PEM_cert_to_DER_cert(pem_of(VECTOR)) == VECTOR
    assert pem_of(VECTOR) == ssl.DER_cert_to_PEM_cert(VECTOR)
