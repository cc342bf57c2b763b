"""When certificates expire: read by bascule, and by the library that reads all of them."""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography.x509 import load_pem_x509_certificate

from bascule.net import ServerTLS
from bascule.net._expiry import expiry_of
from bascule.net._tls import shown_certificates

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates import Certificates

UTC = datetime.UTC


def issued(ca: trustme.CA, not_after: datetime.datetime) -> tuple[bytes, bytes]:
    made = ca.issue_cert("localhost", not_after=not_after)
    return b"".join(each.bytes() for each in made.cert_chain_pems), made.private_key_pem.bytes()


@pytest.mark.parametrize("year", [2049, 2050, 2051, 9998])
@pytest.mark.parametrize("kind", [trustme.KeyType.ECDSA, trustme.KeyType.RSA])
def test_what_is_read_is_what_it_says(kind: trustme.KeyType, year: int) -> None:
    ca = trustme.CA(key_type=kind)
    chain, _ = issued(ca, datetime.datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC))
    expires = load_pem_x509_certificate(chain).not_valid_after_utc.timestamp()
    assert expiry_of(chain) == expires


def test_the_first_of_a_chain_to_expire_counts() -> None:
    ca = trustme.CA()
    late, _ = issued(ca, datetime.datetime(2060, 1, 1, tzinfo=UTC))
    early, _ = issued(ca, datetime.datetime(2040, 1, 1, tzinfo=UTC))
    for chain in (late + early, b"a comment\n" + early + b"\n" + late):
        assert expiry_of(chain) == datetime.datetime(2040, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\n\xff\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nMIL//w==\n-----END CERTIFICATE-----",
    ],
)
def test_what_cannot_be_read_has_no_time(content: bytes) -> None:
    assert expiry_of(content) is None


def test_a_renewal_shows_without_a_connection(tmp_path: Path, certificates: Certificates) -> None:
    """Else a server that nobody calls would be reported for the certificate that it had."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(certificates.certificate.read_bytes())
    key.write_bytes(certificates.key.read_bytes())
    named = {"shop.example": (certificates.certificate, certificates.key)}
    context = ServerTLS(certificate, key, names=named, reload=0.0).context(["h2"])

    def shown() -> dict[str, tuple[float, bool]]:
        return {name: state for name, *state in shown_certificates(context, "grpc")}

    before = shown()
    assert set(before) == {"grpc", "grpc shop.example"}
    assert not before["grpc"][1]
    ca = trustme.CA()
    renewed, renewed_key = issued(ca, datetime.datetime(2061, 1, 1, tzinfo=UTC))
    certificate.write_bytes(renewed)
    os.utime(certificate, ns=(1, 1))
    stale = shown()
    assert stale["grpc"] == [before["grpc"][0], True], "its key is not there yet"
    key.write_bytes(renewed_key)
    os.utime(key, ns=(2, 2))
    assert shown()["grpc"] == [datetime.datetime(2061, 1, 1, tzinfo=UTC).timestamp(), False]


def test_who_shows_no_certificate_has_none(certificates: Certificates) -> None:
    from bascule.net import ClientTLS

    assert shown_certificates(None, "x") == []
    assert shown_certificates(ClientTLS(certificates.ca).context(["h2"]), "x") == []
