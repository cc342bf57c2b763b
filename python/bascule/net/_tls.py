"""What a listener or a channel says about TLS, turned into a context of the standard library.

The files are looked at again when a handshake begins, at most every few seconds: certificates are
renewed without a restart, and without a task or a thread that watches them.
"""

from __future__ import annotations

import logging
import math
import os
import ssl
import time
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from bascule.errors import ConfigurationError
from bascule.net._expiry import expiry_of
from bascule.observe import CertificateState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ClientTLS", "ServerTLS"]

logger = logging.getLogger("bascule.net")

FilePath = str | PathLike[str]

#: Seconds between two looks at the files.
RELOAD = 10.0

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
    :param names: certificate and key for clients that ask for another name (SNI, RFC 6066, 3), by
        that name; ``*.example.org`` stands for every name one level below
    :param reload: seconds between two looks whether a file has changed, taken when a client
        connects; :data:`math.inf` to read the files once. Connections that are open stay as they
        are. While a changed file cannot be used, the last good ones are.
    :param on_reload: called after each reload with None, or with why the last good files stay
    """

    certificate: FilePath
    key: FilePath
    client_ca: FilePath | None = None
    names: Mapping[str, tuple[FilePath, FilePath]] = field(default_factory=dict, hash=False)
    reload: float = RELOAD
    on_reload: Callable[[ConfigurationError | None], None] | None = None

    def context(self, alpn: Sequence[str]) -> ssl.SSLContext:
        """Read the files and make a context for the accepting side.

        :param alpn: application protocols in order of preference, such as ``["h2", "http/1.1"]``
        :raises ConfigurationError: if a file is missing, is not PEM, or the key does not belong
            to the certificate
        """

        def fill(context: _Identified) -> None:
            _restrict(context, alpn)
            _load_identity(context, self.certificate, self.key)
            if self.client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                _load_authorities(context, self.client_ca)
            if self.names:
                context.by_name, context.sni_callback = self._by_name(alpn)

        files = [self.certificate, self.key, self.client_ca]
        files += [file for pair in self.names.values() for file in pair]
        return _context(ssl.PROTOCOL_TLS_SERVER, fill, files, self.reload, self.on_reload)

    def _by_name(
        self, alpn: Sequence[str]
    ) -> tuple[dict[str, ssl.SSLContext], Callable[[ssl.SSLObject, str | None, object], None]]:
        found = {
            name.lower(): ServerTLS(*pair, self.client_ca, reload=math.inf).context(alpn)
            for name, pair in self.names.items()
        }

        def choose(connection: ssl.SSLObject, name: str | None, _: object) -> None:
            asked = "" if name is None else name.lower()
            context = found.get(asked) or found.get(f"*.{asked.partition('.')[2]}")
            if context is not None:
                connection.context = context

        return found, choose


@dataclass(frozen=True, slots=True)
class ClientTLS:
    """Whom a channel trusts, and the identity that it shows.

    :param ca: PEM file with the authorities that the server's certificate must come from; None
        for those that the system trusts
    :param certificate: PEM file with the client's certificate, if servers ask for one
    :param key: PEM file with its private key, not encrypted; None if ``certificate`` holds it
    :param server_name: name that the server's certificate must carry; None for the host of the
        target
    :param reload: seconds between two looks whether a file has changed, taken when a connection is
        made; as for :class:`ServerTLS`
    :param on_reload: as for :class:`ServerTLS`
    :raises ConfigurationError: if there is a key without a certificate
    """

    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    server_name: str | None = None
    reload: float = RELOAD
    on_reload: Callable[[ConfigurationError | None], None] | None = None

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

        def fill(context: _Identified) -> None:
            _restrict(context, alpn)
            if self.ca is None:
                context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            else:
                _load_authorities(context, self.ca)
            if self.certificate is not None:
                _load_identity(context, self.certificate, self.key or self.certificate)

        files = [self.ca, self.certificate, self.key]
        return _context(ssl.PROTOCOL_TLS_CLIENT, fill, files, self.reload, self.on_reload)


def _context(
    protocol: int,
    fill: Callable[[_Identified], None],
    files: Sequence[FilePath | None],
    every: float,
    on_reload: Callable[[ConfigurationError | None], None] | None,
) -> _Identified:
    named = [each for each in files if each is not None]
    if every == math.inf or not named:
        context = _Identified(protocol)
        fill(context)
        return context
    return _Reloading(protocol, fill, named, every, on_reload)


def shown_certificates(context: ssl.SSLContext | None, name: str) -> list[CertificateState]:
    """The certificates that a context made here shows, with when they expire.

    Looks at the files if it is time to: nobody need connect for a renewal to be seen.

    :param name: of the certificate; those for other names (SNI) have it before their own
    """
    if not isinstance(context, _Identified):
        return []
    newest, stale = context.newest()
    named = {name: newest, **{f"{name} {other}": each for other, each in newest.by_name.items()}}
    expiries = {
        which: each.not_after() for which, each in named.items() if isinstance(each, _Identified)
    }
    return [
        CertificateState(which, not_after, stale)
        for which, not_after in expiries.items()
        if not_after is not None
    ]


class _Identified(ssl.SSLContext):
    """A context that knows which certificates it shows.

    :ivar by_name: those for clients that ask for another name
    """

    def __new__(cls, protocol: int, *_: object) -> Self:
        return super().__new__(cls, protocol)

    def __init__(self, protocol: int) -> None:
        self.chain: bytes | None = None
        self.by_name: dict[str, ssl.SSLContext] = {}
        self._not_after: float | None = None

    def newest(self) -> tuple[_Identified, bool]:
        """What handshakes use now, and whether its files have changed and cannot be used."""
        return self, False

    def not_after(self) -> float | None:
        """When the first of the chain expires, in seconds since the epoch; None if there is none."""
        if self._not_after is None and self.chain is not None:
            chain, self.chain = self.chain, None
            self._not_after = expiry_of(chain)
        return self._not_after


class _Reloading(_Identified):
    """A context that begins each handshake with what its files hold by then.

    A context cannot forget an authority, so a changed file makes a new one. Each event loop asks
    the context it was given for the TLS of one connection, and is answered by the newest.
    """

    def __init__(
        self,
        protocol: int,
        fill: Callable[[_Identified], None],
        files: list[FilePath],
        every: float,
        on_reload: Callable[[ConfigurationError | None], None] | None,
    ) -> None:
        super().__init__(protocol)
        self._fill = fill
        self._files = files
        self._every = every
        self._on_reload = on_reload
        # Before the files are read: what changes meanwhile is seen the next time.
        self._seen = _states(files)
        self._next_look = time.monotonic() + every
        self._newest: _Identified | None = None
        self._stale = False
        fill(self)

    def newest(self) -> tuple[_Identified, bool]:
        if time.monotonic() >= self._next_look:
            self._look()
        return self._newest or self, self._stale

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """TLS for one connection."""
        if time.monotonic() >= self._next_look:
            self._look()
        if self._newest is None:
            return super().wrap_bio(*args, **options)
        return self._newest.wrap_bio(*args, **options)

    def _look(self) -> None:
        self._next_look = time.monotonic() + self._every
        states = _states(self._files)
        if states == self._seen:
            return
        self._seen = states
        # Not of this class, which would watch the files as well.
        newest = _Identified(self.protocol)
        problem: ConfigurationError | None = None
        try:
            self._fill(newest)
            self._newest = newest
        except ConfigurationError as error:
            problem = error
        self._stale = problem is not None
        if problem is None:
            logger.info(
                "TLS files were reloaded: %s", ", ".join(fspath(each) for each in self._files)
            )
        else:
            logger.error("TLS goes on with the last good files: %s", problem)
        if self._on_reload is not None:
            self._on_reload(problem)


def _states(files: Sequence[FilePath]) -> list[tuple[int, int, int] | None]:
    """What tells one version of a file from another, behind symbolic links too."""

    def state(path: FilePath) -> tuple[int, int, int] | None:
        try:
            found = os.stat(path)  # noqa: PTH116 - a PathLike need be no Path
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    return [state(each) for each in files]


def _restrict(context: ssl.SSLContext, alpn: Sequence[str]) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS_OF_TLS_1_2)
    # RFC 9113, 9.2.1: HTTP/2 forbids both; neither has a use in HTTP/1.1.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Lets a file name one intermediate authority, or the server's own certificate, as trusted.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if alpn:
        context.set_alpn_protocols(list(alpn))


def _load_identity(context: _Identified, certificate: FilePath, key: FilePath) -> None:
    context.chain = _require(certificate, "certificate", b"CERTIFICATE-----")
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


def _require(path: FilePath, role: str, marker: bytes) -> bytes:
    """Read a file; refuse what OpenSSL would refuse without saying which of two files it was."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        msg = f"TLS {role} {fspath(path)!r} cannot be read: {error.strerror or error}"
        raise ConfigurationError(msg) from error
    if marker not in content:
        msg = f"TLS {role} {fspath(path)!r} holds no PEM block that ends in {marker.decode()!r}"
        raise ConfigurationError(msg)
    return content


def _reason(error: ssl.SSLError) -> str:
    return error.reason.lower().replace("_", " ") if error.reason else str(error)
