"""When certificates expire: the one field that is read of them, without the library that reads all."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

__all__ = ["expiry_of"]

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

#: Tags of DER (X.690, 8.1.2): the optional version of a certificate, and the older kind of time.
_VERSION, _UTC_TIME = 0xA0, 0x17


def expiry_of(chain: bytes) -> float | None:
    """Tell when the first certificate of a PEM file expires, in seconds since the epoch.

    :returns: None if one cannot be read
    """
    try:
        text = chain.decode("ascii", errors="replace")
        found = [_not_after(ssl.PEM_cert_to_DER_cert(block)) for block in _PEM.findall(text)]
    except (ValueError, IndexError):
        return None
    return min(found, default=None)


def _not_after(certificate: bytes) -> float:
    """By RFC 5280, 4.1: version, serial number, signature's algorithm, issuer, validity."""
    _, outer, _ = _value(certificate, 0)
    _, inner, _ = _value(outer, 0)
    tag, _, at = _value(inner, 0)
    for _ in range(3 if tag == _VERSION else 2):
        _, _, at = _value(inner, at)
    _, validity, _ = _value(inner, at)
    _, _, at = _value(validity, 0)
    tag, written, _ = _value(validity, at)
    # RFC 5280, 4.1.2.5: seconds are given, the zone is Z, and two digits of a year mean 1950 to 2049.
    digits = written.decode("ascii")
    if tag == _UTC_TIME:
        digits = ("19" if digits >= "50" else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _value(data: bytes, at: int) -> tuple[int, bytes, int]:
    """The tag and the content of what begins at a place, and where it ends."""
    tag, length, begin = data[at], data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, begin = int.from_bytes(data[begin : begin + size]), begin + size
    return tag, data[begin : begin + length], begin + length
