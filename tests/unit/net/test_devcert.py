"""The development certificate: made once, kept, renewed in time, never half written."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from bascule.errors import ConfigurationError
from bascule.net._devcert import development_certificate
from bascule.net._tls import ServerTLS

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def content(paths: tuple[Path, Path]) -> tuple[bytes, bytes]:
    return paths[0].read_bytes(), paths[1].read_bytes()


def test_it_is_made_and_only_the_owner_reads_the_key(tmp_path: Path) -> None:
    home = tmp_path / "state" / "tls"
    certificate_path, key_path = development_certificate(home, now=NOW)
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca


def test_it_is_kept_until_seven_days_before_its_end(tmp_path: Path) -> None:
    paths = development_certificate(tmp_path, now=NOW)
    first = content(paths)
    end = x509.load_pem_x509_certificate(first[0]).not_valid_after_utc
    just_before = end - timedelta(days=7, seconds=1)
    assert content(development_certificate(tmp_path, now=just_before)) == first

    renewed = development_certificate(tmp_path, now=end - timedelta(days=7))
    assert renewed == paths
    assert content(renewed)[0] != first[0]
    assert content(renewed)[1] != first[1]
    ServerTLS(*renewed).context([])


def test_one_of_the_future_is_replaced(tmp_path: Path) -> None:
    first = content(development_certificate(tmp_path, now=NOW))
    assert content(development_certificate(tmp_path, now=NOW - timedelta(days=2))) != first


@pytest.mark.parametrize("damage", ["no key", "cut key", "cut certificate", "key of another"])
def test_damaged_files_are_replaced(tmp_path: Path, damage: str) -> None:
    certificate, key = development_certificate(tmp_path, now=NOW)
    if damage == "no key":
        key.unlink()
    elif damage == "cut key":
        key.write_bytes(key.read_bytes()[:40])
    elif damage == "cut certificate":
        certificate.write_bytes(certificate.read_bytes()[:40])
    else:
        other = development_certificate(tmp_path / "other", now=NOW)[1]
        key.write_bytes(other.read_bytes())
    ServerTLS(*development_certificate(tmp_path, now=NOW)).context([])


def test_starting_together_gives_one_certificate(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: content(development_certificate(tmp_path)), range(16)))
    assert len(made) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "localhost.key",
        "localhost.lock",
        "localhost.pem",
    ]


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot be kept in '.*file'"):
        development_certificate(occupied)
