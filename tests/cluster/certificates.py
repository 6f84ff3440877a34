"""The cluster's certificate authority, its certificates, and kubeconfig files that hold them."""

import base64
import datetime as dt
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALIDITY = dt.timedelta(days=365)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of one cluster; everything that it issues lies in `folder`."""

    def __init__(self, folder: Path, now: dt.datetime) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = folder / "ca.crt"
        self._now = now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("kubernetes")
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, user: str, groups: Sequence[str] = (), *, names: Sequence[str] = ()) -> Certificate:
        """A certificate for both ends of TLS; Kubernetes reads its subject as a user and the user's groups.

        Args:
            user: Common name, and the base of the files' names.
            groups: Organizations.
            names: DNS names and IP addresses that a server with this certificate answers for.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(user, groups), key).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_subject(name) for name in names]), critical=False
            )
        base = user.replace(":", "-")
        issued = Certificate(self.folder / f"{base}.crt", self.folder / f"{base}.key")
        issued.certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        write_private_key(issued.key, key)
        return issued

    def kubeconfig(self, file: Path, server: str, user: str, groups: Sequence[str] = ()) -> Path:
        """Write a kubeconfig that is complete in itself and makes its holder `user`."""
        issued = self.issue(user, groups)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "clusters": [
                {"name": "test", "cluster": {"server": server, "certificate-authority-data": _encoded(self.file)}}
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": _encoded(issued.certificate),
                        "client-key-data": _encoded(issued.key),
                    },
                }
            ],
        }
        file.touch(mode=0o600)
        file.write_text(json.dumps(content, indent=2) + "\n")
        return file

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        # An hour back, so that clocks may differ.
        start = self._now - dt.timedelta(hours=1)
        return x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=start,
            not_valid_after=start + VALIDITY,
        )


def service_account_keys(folder: Path) -> Certificate:
    """The pair that signs service-account tokens: the public key is in place of a certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    pair = Certificate(folder / "service-accounts.pub", folder / "service-accounts.key")
    pair.certificate.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    write_private_key(pair.key, key)
    return pair


def write_private_key(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a key as PEM, readable by its owner only."""
    file.touch(mode=0o600)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))


def _name(user: str, groups: Sequence[str] = ()) -> x509.Name:
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _subject(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
