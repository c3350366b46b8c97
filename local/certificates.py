"""The local certificate authority behind every TLS port that the emulated account opens.

On AWS the servers' certificates come from Amazon's authorities; here one authority per state directory
signs one server certificate for `127.0.0.1` and `localhost`. Both are made once and then only read, so
that the authority's certificate can be part of images and Lambda packages with a stable content hash.
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALIDITY_DAYS = 3650


class CertificatePaths(Protocol):
    """What this module needs of `local.paths.LocalPaths`."""

    @property
    def certificates(self) -> Path: ...


@dataclass(frozen=True)
class ServerCertificate:
    """Files in PEM form; `key` is readable by its owner alone."""

    certificate: Path
    key: Path


def ensure_ca(paths: CertificatePaths) -> Path:
    """Return `certificates/ca.pem`, making the authority when there is none yet.

    Safe to call from several processes at once: the first one makes it, the others read it.
    """
    with _locked(paths.certificates):
        return _ensure_ca(paths.certificates)


def ensure_server_certificate(paths: CertificatePaths) -> ServerCertificate:
    """Return the certificate that the authority signed for `127.0.0.1`, `::1` and `localhost`."""
    folder = paths.certificates
    with _locked(folder):
        ca_file = _ensure_ca(folder)
        server = ServerCertificate(certificate=folder / "server.pem", key=folder / "server.key")
        if server.certificate.exists() and server.key.exists():
            return server
        ca = x509.load_pem_x509_certificate(ca_file.read_bytes())
        ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
            raise ValueError(
                f"{folder / 'ca.key'}: not an elliptic curve key; remove {folder} and start again"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _server_builder(ca, ca_key, key).sign(ca_key, hashes.SHA256())
        _write_private(server.key, _key_pem(key))
        _write_private(server.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        return server


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # Every command makes the authority first, and with it the state directory, which is for its owner alone.
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True, mode=0o700)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ensure_ca(folder: Path) -> Path:
    certificate_file, key_file = folder / "ca.pem", folder / "ca.key"
    if certificate_file.exists() and key_file.exists():
        return certificate_file
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Updraft local authority")])
    certificate = (
        _builder(subject=name, issuer=name, key=key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    # A server certificate of an earlier authority would not verify against this one.
    (folder / "server.pem").unlink(missing_ok=True)
    _write_private(key_file, _key_pem(key))
    _write_private(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
    return certificate_file


def _server_builder(
    ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    return (
        _builder(subject=subject, issuer=ca.subject, key=key)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
    )


def _builder(
    *, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A day back: the clocks of a machine and of its virtual machines differ.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALIDITY_DAYS))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
