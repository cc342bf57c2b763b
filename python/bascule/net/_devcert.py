"""A certificate for localhost, so that the first start needs no certificate authority."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bascule._files import replace_file
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["development_certificate"]

_LIFETIME = timedelta(days=90)
_RENEW_BEFORE_END = timedelta(days=7)
_CLOCK_SKEW = timedelta(hours=1)


def development_certificate(
    directory: str | os.PathLike[str], *, now: datetime | None = None
) -> tuple[Path, Path]:
    """Answer a self-signed certificate for localhost, 127.0.0.1 and ::1, and its key.

    It is made when there is none, kept over restarts, and renewed when it ends within 7 days.
    Processes that start together get the same one. Clients trust it by naming the certificate's
    file as their authority. It proves nothing about the machine: for development only.

    :param directory: where both files live; made if it does not exist
    :param now: the time to judge validity by, with a zone; the system's clock if None
    :return: paths of the certificate and of the key, which only the owner can read
    :raises ConfigurationError: if the directory or a file cannot be written
    """
    home = Path(directory)
    now = datetime.now(UTC) if now is None else now
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (home / "localhost.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # closing the file releases it
            return _ensure(home / "localhost.pem", home / "localhost.key", now)
    except OSError as error:
        msg = (
            f"the development certificate cannot be kept in {os.fspath(directory)!r}: "
            f"{error.strerror or error}; name a directory that this user may write"
        )
        raise ConfigurationError(msg) from error


def _ensure(certificate_path: Path, key_path: Path, now: datetime) -> tuple[Path, Path]:
    if not _usable(certificate_path, key_path, now):
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        replace_file(key_path, pem, mode=0o600)
        certificate = _self_signed(key, now).public_bytes(serialization.Encoding.PEM)
        replace_file(certificate_path, certificate, mode=0o644)
    return certificate_path, key_path


def _usable(certificate_path: Path, key_path: Path, now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError):  # absent, cut short, encrypted by somebody
        return False
    return (
        certificate.public_key() == key.public_key()
        and certificate.not_valid_before_utc <= now
        and certificate.not_valid_after_utc - now > _RENEW_BEFORE_END
    )


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "bascule development"),
            x509.NameAttribute(NameOID.COMMON_NAME, "localhost"),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
    )
    for extension, critical in _extensions(key.public_key()):
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256())


def _extensions(key: ec.EllipticCurvePublicKey) -> Iterator[tuple[x509.ExtensionType, bool]]:
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ip_address("127.0.0.1")),
        x509.IPAddress(ip_address("::1")),
    ]
    yield x509.SubjectAlternativeName(names), False
    # Not an authority: whoever trusts it and loses the key has lost localhost and nothing else.
    yield x509.BasicConstraints(ca=False, path_length=None), True
    yield _KEY_USAGE, True
    yield x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False
    yield x509.SubjectKeyIdentifier.from_public_key(key), False
    yield x509.AuthorityKeyIdentifier.from_issuer_public_key(key), False


_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
