"""Certificates: those in files, and those that servers show."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import anyio.streams.tls

from bascule.cli._insecure import Unverified
from bascule.cli.doctor._examine import Check, Report
from bascule.errors import ConfigurationError
from bascule.net import ClientTLS, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cryptography.x509 import Certificate

    from bascule.cli.doctor._examine import Look

__all__ = ["Certificates", "checks_of_certificates"]

#: Renew before this much is left, or a third of the lifetime if that is less: what renews by itself
#: does so at a third (RFC 9773 leaves it to the issuer, ACME clients by custom).
_SOON = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Which certificates to look at.

    :ivar files: PEM files, each with a certificate and those between it and the root
    :ivar keys: PEM files with their private keys, in the same order; a file without one has it inside
    :ivar servers: ``host:port`` of servers that talk TLS
    :ivar authorities: PEM file with whom to trust; None for the system's
    :ivar client: for servers that ask for a certificate
    """

    files: tuple[Path, ...] = ()
    keys: tuple[Path, ...] = ()
    servers: tuple[str, ...] = ()
    authorities: Path | None = None
    client: ClientTLS | None = None


def checks_of_certificates(wanted: Certificates) -> Iterator[Check]:
    """Give a check for each file and for each server.

    :raises ConfigurationError: if there are more keys than certificates
    """
    if len(wanted.keys) > len(wanted.files):
        raise ConfigurationError("--certificate-key: give as many --certificate before it")
    keys: list[Path | None] = [*wanted.keys, *[None] * (len(wanted.files) - len(wanted.keys))]
    for file, key in zip(wanted.files, keys, strict=True):
        yield Check("certificates", str(file), _file(file, key or file, wanted.authorities))
    for server in wanted.servers:
        look = _server(server, wanted.client or ClientTLS())
        yield Check("certificates", server, look, "start it, or correct its address")


def _file(file: Path, key: Path, authorities: Path | None) -> Look:
    async def look(report: Report) -> None:
        from cryptography import x509

        try:
            chain = x509.load_pem_x509_certificates(await anyio.Path(file).read_bytes())
        except (OSError, ValueError) as error:
            report.failed(_reason(error), "name a PEM file: the certificate, then its issuers")
            return
        _look_at_dates(report, chain)
        _look_at_names(report, chain[0])
        await _look_at_chain(report, chain, authorities)
        await _look_at_key(report, chain[0], key)

    return look


def _look_at_dates(report: Report, chain: Sequence[Certificate]) -> None:
    now = datetime.now(UTC)
    first = min(chain, key=lambda each: each.not_valid_after_utc)
    begins = max(each.not_valid_before_utc for each in chain)
    ends, lifetime = (
        first.not_valid_after_utc,
        first.not_valid_after_utc - first.not_valid_before_utc,
    )
    when = f"{ends:%Y-%m-%d %H:%M} UTC"
    if ends <= now:
        report.failed(
            f"has ended on {when}", "renew it; bascule takes the new file without a restart"
        )
    elif begins > now:
        report.failed(
            f"begins on {begins:%Y-%m-%d %H:%M} UTC only", "wait, or correct this machine's clock"
        )
    elif ends - now < min(_SOON, lifetime / 3):
        report.warning(f"ends on {when}, {_left(ends - now)}", "renew it now")
    else:
        report.ok(f"ends on {when}, {_left(ends - now)}")


def _look_at_names(report: Report, certificate: Certificate) -> None:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        report.failed(
            "has no subject alternative name",
            "have it issued with one: clients read no common name (RFC 9525)",
        )
        return
    shown = [str(each) for each in names.get_values_for_type(x509.DNSName)]
    shown += [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    shown += [str(each) for each in names.get_values_for_type(x509.UniformResourceIdentifier)]
    report.ok(f"is for {', '.join(shown)}" if shown else "is for no host")


async def _look_at_chain(
    report: Report, chain: Sequence[Certificate], authorities: Path | None
) -> None:
    from cryptography import x509

    for issued, issuer in pairwise(chain):
        if not _issued(issued, issuer):
            report.failed(
                f"{_name(issued)} is not issued by {_name(issuer)}, which follows it",
                "put the certificate first, then its issuer, and so on",
            )
            return
    last = chain[-1]
    if authorities is not None:
        try:
            trusted = x509.load_pem_x509_certificates(await anyio.Path(authorities).read_bytes())
        except (OSError, ValueError) as error:
            report.failed(f"{authorities}: {_reason(error)}", "name a PEM file of authorities")
            return
        if any(last == each or _issued(last, each) for each in trusted):
            report.ok(f"a chain of {len(chain)} to an authority in {authorities}")
        else:
            report.failed(
                f"{_name(last)} comes from {last.issuer.rfc4514_string()}, which {authorities} does not have",
                "add what is missing between them, or trust the right authority",
            )
    elif _issued(last, last):
        report.warning(
            "is issued by itself", "clients must be given it; for production, use an authority"
        )
    else:
        report.ok(f"a chain of {len(chain)}, up to {last.issuer.rfc4514_string()}")


async def _look_at_key(report: Report, certificate: Certificate, file: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(await anyio.Path(file).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        report.failed(
            f"its key: {_reason(error)}", "name its key, not encrypted: --certificate-key PEM"
        )
        return
    if key.public_key() != certificate.public_key():
        report.failed(f"the key in {file} is another one's", "name the key that it was issued for")
        return
    mode = (await anyio.Path(file).stat()).st_mode & 0o777
    if mode & 0o044:
        report.warning(
            f"its key fits, and others may read it (mode {mode:o})", f"chmod go-r {file}"
        )
    else:
        report.ok("its key fits, and only its owner reads it")


def _server(server: str, client: ClientTLS) -> Look:
    async def look(report: Report) -> None:
        address = parse_address(server)
        if address.kind != "tcp":
            raise ConfigurationError(f"--tls-server {server!r}: expected HOST:PORT")
        name = client.server_name or address.host
        unverified = Unverified(client.ca, client.certificate, client.key, client.server_name)
        shown = await _handshake(address.host, address.port, unverified, name)
        if shown.certificate is not None:
            _look_at_dates(report, [shown.certificate])
            _look_at_names(report, shown.certificate)
        try:
            await _handshake(address.host, address.port, client, name)
        except ssl.SSLCertVerificationError as error:
            report.failed(
                f"a client that asks for {name!r} refuses it: {error.verify_message}",
                "trust its authority (--cacert PEM), or have it issued for this name",
            )
            return
        if shown.alpn == "h2":
            report.ok(f"a client that asks for {name!r} takes it: {shown.version}, HTTP/2")
        else:
            report.warning(
                f"a client takes it, but it speaks {shown.alpn or 'no protocol that it names'}",
                "gRPC needs ALPN h2: look at the proxy in front of it",
            )

    return look


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a server has shown in a handshake."""

    certificate: Certificate | None
    alpn: str | None
    version: str


async def _handshake(host: str, port: int, tls: ClientTLS, name: str) -> _Shown:
    from cryptography import x509

    context = tls.context(("h2", "http/1.1"))
    async with await anyio.connect_tcp(host, port) as raw:
        try:
            stream = await anyio.streams.tls.TLSStream.wrap(
                raw,
                server_side=False,
                hostname=name,
                ssl_context=context,
                standard_compatible=False,
            )
        except anyio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise error.__cause__ from None
            raise ConnectionError("it closed the connection during the handshake") from error
        tls_object = stream.extra(anyio.streams.tls.TLSAttribute.ssl_object)  # noqa: S610 - no Django here
        der = tls_object.getpeercert(binary_form=True)
        return _Shown(
            None if der is None else x509.load_der_x509_certificate(der),
            tls_object.selected_alpn_protocol(),
            str(tls_object.version()),
        )


def _issued(certificate: Certificate, issuer: Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _name(certificate: Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"number {certificate.serial_number:x}"


def _left(rest: timedelta) -> str:
    return f"in {rest.days} days" if rest.days else f"in {rest.seconds // 3600} hours"


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error).partition(". See ")[0]
    return text or type(error).__name__
