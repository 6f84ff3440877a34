"""The certificate by which the embedded store's services know each other: no other user of this machine has its key.

SeaweedFS' gRPC ports take TLS of both sides once they have certificates; without, whoever reaches them may list, change and
delete what is stored: https://github.com/seaweedfs/seaweedfs/wiki/Security-Configuration.
"""

import datetime as dt
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_SERVICES = ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "CLIENT", "MSG_BROKER", "MSG_AGENT")
_CERTIFICATE, _KEY = "grpc.crt", "grpc.key"
_BEFORE, _AFTER = dt.timedelta(days=1), dt.timedelta(days=3650)
"""Around now: clocks are put back, and a run may take long."""


def new_certificate(folder: Path, now: dt.datetime) -> dict[str, str]:
    """Makes the certificate of one start, in files of this user's alone; gives the server's environment variables.

    All services present the same one, and trust nothing else.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "atj's embedded store")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + _AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = {
        _CERTIFICATE: certificate.public_bytes(Encoding.PEM),
        _KEY: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }
    for file, content in files.items():
        _write(folder / file, content)
    paths = {"CERT": str(folder.resolve() / _CERTIFICATE), "KEY": str(folder.resolve() / _KEY)}
    each = {f"WEED_GRPC_{service}_{part}": path for service in _SERVICES for part, path in paths.items()}
    return {"WEED_GRPC_CA": paths["CERT"], **each}


def _write(file: Path, content: bytes) -> None:
    file.unlink(missing_ok=True)  # an older one may be readable by others
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
