"""A gateway's file, and everything that it names."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bascule.cli.doctor._certificates import Certificates, checks_of_certificates
from bascule.cli.doctor._examine import Check, Report
from bascule.cli.doctor._project import checks_of_ports
from bascule.cli.doctor._servers import Servers, checks_of_servers
from bascule.errors import ConfigurationError
from bascule.gateway import GatewayFile, RemoteKeys
from bascule.net import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bascule.cli.doctor._examine import Look

__all__ = ["checks_of_gateway"]


def checks_of_gateway(file: Path, *, timeout: float) -> Iterator[Check]:
    """Give a check of the file itself, then of its ports, services, keys, Redis and certificates.

    :param timeout: seconds that each server has
    """
    with TemporaryDirectory() as scratch:
        try:
            read = GatewayFile.read(file, development=scratch)
            routes = len(read.gateway().bindings)
        except ConfigurationError as error:
            yield Check("project", str(file), _wrong(error))
            return
        yield Check("project", str(file), _good(routes))
        yield from _named(read, Path(scratch), timeout)


def _named(read: GatewayFile, scratch: Path, timeout: float) -> Iterator[Check]:
    config = read.config
    listen = (config.listen,) if isinstance(config.listen, str) else config.listen
    addresses = [*listen, read.operations or ""]
    yield from checks_of_ports([each for each in addresses if _has_port(each)])
    for service in config.upstreams:
        upstream = config.upstream(service)
        targets = Servers(targets=(upstream.target,), tls=upstream.tls, timeout=timeout)
        yield from checks_of_servers(targets)
    if config.redis is not None:
        yield from checks_of_servers(Servers(redis=(config.redis,), timeout=timeout))
    keys = None if config.auth is None else config.auth.keys
    if isinstance(keys, RemoteKeys):
        issuer = Servers(jwks=(keys.url,), authorities=keys.tls, timeout=timeout)
        yield from checks_of_servers(issuer)
    if config.tls is not None:
        for certificate, key in (
            (config.tls.certificate, config.tls.key),
            *config.tls.names.values(),
        ):
            # One that is made for development is always good.
            if not Path(certificate).is_relative_to(scratch):
                yield from checks_of_certificates(
                    Certificates(files=(Path(certificate),), keys=(Path(key),))
                )


def _has_port(address: str) -> bool:
    with suppress(ConfigurationError):
        found = parse_address(address)
        return found.kind == "tcp" and found.port != 0
    return False


def _good(routes: int) -> Look:
    async def look(report: Report) -> None:
        report.ok(f"can be served: {routes} routes")

    return look


def _wrong(error: ConfigurationError) -> Look:
    async def look(report: Report) -> None:
        report.failed(
            str(error), "correct the file; bascule gateway --keys prints all that it may have"
        )

    return look
