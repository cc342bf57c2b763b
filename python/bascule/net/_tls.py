"""What a listener or a channel says about TLS, turned into a context of the standard library."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ClientTLS", "ServerTLS"]

FilePath = str | PathLike[str]

# RFC 9113, 9.2.2: with TLS 1.2, HTTP/2 wants an ephemeral key exchange and an AEAD cipher.
# The suites of TLS 1.3 all qualify and are not governed by this list.
_CIPHERS_OF_TLS_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """The identity of a listener, and whether its clients must have one too.

    :param certificate: PEM file with the certificate and those between it and the root
    :param key: PEM file with the private key, not encrypted
    :param client_ca: PEM file with the authorities that a client's certificate must come from;
        None if clients need no certificate
    """

    certificate: FilePath
    key: FilePath
    client_ca: FilePath | None = None

    def context(self, alpn: Sequence[str]) -> ssl.SSLContext:
        """Read the files and make a context for the accepting side.

        :param alpn: application protocols in order of preference, such as ``["h2", "http/1.1"]``
        :raises ConfigurationError: if a file is missing, is not PEM, or the key does not belong
            to the certificate
        """
        context = _restrict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), alpn)
        _load_identity(context, self.certificate, self.key)
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            _load_authorities(context, self.client_ca)
        return context


@dataclass(frozen=True, slots=True)
class ClientTLS:
    """Whom a channel trusts, and the identity that it shows.

    :param ca: PEM file with the authorities that the server's certificate must come from; None
        for those that the system trusts
    :param certificate: PEM file with the client's certificate, if servers ask for one
    :param key: PEM file with its private key, not encrypted; None if ``certificate`` holds it
    :param server_name: name that the server's certificate must carry; None for the host of the
        target
    :raises ConfigurationError: if there is a key without a certificate
    """

    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            msg = f"TLS key {fspath(self.key)!r} is of no use without its certificate: set both"
            raise ConfigurationError(msg)

    def context(self, alpn: Sequence[str]) -> ssl.SSLContext:
        """Read the files and make a context for the connecting side.

        :param alpn: application protocols in order of preference, such as ``["h2"]``
        :raises ConfigurationError: if a file is missing, is not PEM, or the key does not belong
            to the certificate
        """
        context = _restrict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), alpn)
        if self.ca is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            _load_authorities(context, self.ca)
        if self.certificate is not None:
            _load_identity(context, self.certificate, self.key or self.certificate)
        return context


def _restrict(context: ssl.SSLContext, alpn: Sequence[str]) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS_OF_TLS_1_2)
    # RFC 9113, 9.2.1: HTTP/2 forbids both; neither has a use in HTTP/1.1.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Lets a file name one intermediate authority, or the server's own certificate, as trusted.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _load_identity(context: ssl.SSLContext, certificate: FilePath, key: FilePath) -> None:
    _require(certificate, "certificate", b"CERTIFICATE-----")
    _require(key, "key", b"PRIVATE KEY-----")

    def refuse() -> NoReturn:  # without it, OpenSSL would ask on the terminal and wait
        msg = f"TLS key {fspath(key)!r} is encrypted: give a file without a pass phrase"
        raise ConfigurationError(msg)

    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            msg = (
                f"TLS key {fspath(key)!r} does not belong to certificate {fspath(certificate)!r}: "
                "the certificate of the server comes first in its file, and the key is its own"
            )
        else:
            msg = (
                f"TLS certificate {fspath(certificate)!r} and key {fspath(key)!r} "
                f"cannot be loaded: {_reason(error)}"
            )
        raise ConfigurationError(msg) from error


def _load_authorities(context: ssl.SSLContext, path: FilePath) -> None:
    _require(path, "authorities", b"CERTIFICATE-----")
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        msg = f"TLS authorities {fspath(path)!r} cannot be loaded: {_reason(error)}"
        raise ConfigurationError(msg) from error


def _require(path: FilePath, role: str, marker: bytes) -> None:
    """Refuse what OpenSSL would refuse without saying which of two files it was."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        msg = f"TLS {role} {fspath(path)!r} cannot be read: {error.strerror or error}"
        raise ConfigurationError(msg) from error
    if marker not in content:
        msg = f"TLS {role} {fspath(path)!r} holds no PEM block that ends in {marker.decode()!r}"
        raise ConfigurationError(msg)


def _reason(error: ssl.SSLError) -> str:
    return error.reason.lower().replace("_", " ") if error.reason else str(error)
