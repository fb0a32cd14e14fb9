"""Certificate files as derper's manual mode names them, and a self-signed one for a relay without a domain.

Such a relay is reached by its IP address, and its certificate is pinned in the DERP map: `CertName` =
`sha256-raw:<hex of the certificate's SHA-256>`; no authority is involved.
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

# derper takes one year, after which every pinned client refuses it and the map must change. Nothing but the pin is
# trusted here, so the pin may live as long as the relay.
LIFETIME = timedelta(days=3650)
_NOT_IN_FILE_NAMES = re.compile(r"[^a-zA-Z0-9.-]")


def cert_paths(cert_dir: str, hostname: str) -> tuple[Path, Path]:
    """Certificate chain and key for a host name or address: `<certdir>/<name>.crt`, `.key`; IPv6 loses its colons."""
    name = _NOT_IN_FILE_NAMES.sub("", hostname)
    return Path(cert_dir) / f"{name}.crt", Path(cert_dir) / f"{name}.key"


def is_ip(hostname: str) -> bool:
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def make_self_signed(address: str, now_unix_s: float) -> tuple[bytes, bytes]:
    """Certificate and private key, both PEM: P-256, name and only alternative name the IP address, for TLS servers."""
    # Imported here: it takes a third of the relay's start-up time, and only a relay without a domain needs it once.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    now = datetime.fromtimestamp(now_unix_s, timezone.utc)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(hours=1), now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def ensure_self_signed(cert_dir: str, hostname: str, now_unix_s: float) -> bool:
    """Make the files for an address if neither exists; True if they were made. Raises OSError."""
    certificate_path, key_path = cert_paths(cert_dir, hostname)
    if not is_ip(hostname) or certificate_path.exists() or key_path.exists():
        return False
    certificate, key = make_self_signed(hostname, now_unix_s)
    Path(cert_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    write_new(key_path, key, 0o600)
    write_new(certificate_path, certificate, 0o644)
    return True


def pin_of(pem: str) -> str:
    """`sha256-raw:<hex>` of the first certificate in PEM text: what `CertName` in the DERP map is. Raises ValueError."""
    return "sha256-raw:" + hashlib.sha256(first_certificate(pem)).hexdigest()


def map_node(hostname: str, pin: str) -> str:
    """One node of a DERP map, as JSON, ready to paste; derper logs the same."""
    return json.dumps({"Name": "custom", "RegionID": 900, "HostName": hostname, "CertName": pin})
