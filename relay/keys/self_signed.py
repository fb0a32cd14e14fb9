"""Certificate files as derper's manual mode names them, and a self-signed one for IP addresses.

A relay without a domain is reached by its IP address, and its certificate is pinned in the DERP
map: `CertName` = `sha256-raw:<hex of the certificate's SHA-256>`; no authority is involved.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

from relay.keys.certificate import first_certificate
from relay.keys.node_key import write_new

# derper takes one year. After it every pinned client refuses the certificate, and the map must
# change. Nothing but the pin is trusted here, so the pin may live as long as the relay.
LIFETIME = timedelta(days=3650)
_KEY_USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
_NOT_IN_FILE_NAMES = re.compile(r"[^a-zA-Z0-9.-]")


def cert_paths(cert_dir: str, hostname: str) -> tuple[Path, Path]:
    """Return the paths of chain and key: `<certdir>/<name>.crt` and `.key`.

    The name is a host name or an address. An IPv6 address loses its colons.
    """
    name = _NOT_IN_FILE_NAMES.sub("", hostname)
    return Path(cert_dir) / f"{name}.crt", Path(cert_dir) / f"{name}.key"


def is_ip(hostname: str) -> bool:
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def make_self_signed(address: str, now_unix_s: float) -> tuple[bytes, bytes]:
    """Return certificate and private key, both PEM.

    P-256, for TLS servers; the name and the only alternative name are the IP address.
    """
    # Imported here: it takes a third of the relay's start-up time, and only a relay without a
    # domain needs it, once.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    now = datetime.fromtimestamp(now_unix_s, timezone.utc)
    begin, end, serial = now - timedelta(hours=1), now + LIFETIME, x509.random_serial_number()
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    # A handshake's signature, and RSA's key exchange, as derper's has both.
    usage = dict.fromkeys(_KEY_USES, False) | {"digital_signature": True, "key_encipherment": True}
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), serial, begin, end)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def ensure_self_signed(cert_dir: str, hostname: str, now_unix_s: float) -> bool:
    """Make the files for an address if neither exists; return whether they are new.

    Raises OSError.
    """
    certificate_path, key_path = cert_paths(cert_dir, hostname)
    if not is_ip(hostname) or certificate_path.exists() or key_path.exists():
        return False
    certificate, key = make_self_signed(hostname, now_unix_s)
    Path(cert_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    write_new(key_path, key, 0o600)
    write_new(certificate_path, certificate, 0o644)
    return True


def pin_of(pem: str) -> str:
    """Return `sha256-raw:<hex>` of the first certificate in PEM text: a `CertName` of the DERP map.

    Raises ValueError.
    """
    return "sha256-raw:" + hashlib.sha256(first_certificate(pem)).hexdigest()


def map_node(hostname: str, pin: str) -> str:
    """Return one node of a DERP map, as JSON, ready to paste; derper logs the same."""
    return json.dumps({"Name": "custom", "RegionID": 900, "HostName": hostname, "CertName": pin})
