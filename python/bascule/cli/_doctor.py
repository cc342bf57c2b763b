"""``bascule doctor``: its arguments."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from bascule.cli._call import Loop
from bascule.cli._ending import FAILED, ending

if TYPE_CHECKING:
    from bascule.cli.doctor import Check, Finding

__all__ = ["doctor"]

_CONSUL = "HOST:PORT of a Consul agent; also from SHOP_CONSUL and CONSUL_HTTP_ADDR."
_REDIS = "URL of a Redis; also from SHOP_EVENTS."
_DATABASE = (
    "URL of a database, mongodb:// too; also from BASCULE_SAGA_DATABASE and SHOP_DATABASE_NAME."
)
_OTLP = "URL of a collector of traces; also from OTEL_EXPORTER_OTLP_ENDPOINT."


def doctor(
    apps: Annotated[
        list[str] | None, typer.Argument(metavar="[MODULE:APP]...", help="Apps to import.")
    ] = None,
    *,
    config: Annotated[
        list[Path] | None,
        typer.Option("-c", "--config", metavar="FILE", help="A gateway's configuration."),
    ] = None,
    port: Annotated[
        list[str] | None,
        typer.Option(metavar="[HOST:]PORT", help="Whether it is free, or who listens."),
    ] = None,
    consul: Annotated[list[str] | None, typer.Option(metavar="HOST:PORT", help=_CONSUL)] = None,
    redis: Annotated[list[str] | None, typer.Option(metavar="URL", help=_REDIS)] = None,
    database: Annotated[list[str] | None, typer.Option(metavar="URL", help=_DATABASE)] = None,
    otlp: Annotated[list[str] | None, typer.Option(metavar="URL", help=_OTLP)] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET", help="A gRPC service, asked for its health."),
    ] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Anything by HTTP, such as a gateway's /readyz."),
    ] = None,
    jwks: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="An issuer's key set.")
    ] = None,
    certificate: Annotated[
        list[Path] | None, typer.Option(metavar="PEM", help="A certificate with its chain.")
    ] = None,
    certificate_key: Annotated[
        list[Path] | None,
        typer.Option(metavar="PEM", help="Its private key, if it is not in the same file."),
    ] = None,
    tls_server: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="Whose certificate to look at."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Talk TLS to the targets.")] = False,
    cacert: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM", help="Authorities to trust, by --target, --tls-server and https."
        ),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="PEM", help="A client's certificate to show them.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its private key.")] = None,
    server_name: Annotated[
        str | None, typer.Option(help="Name that the servers' certificates must carry.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that each server has to answer.")
    ] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as JSON on standard output.")
    ] = False,
    loop: Annotated[Loop, typer.Option(help="The event loop.")] = Loop.ASYNCIO,
) -> None:
    """Look at this machine, and at what a service needs; say what is wrong and what to do.

    Every option may be given more than once, and what is not named is not checked. Nothing is
    changed anywhere. The exit code is 1 if something failed, 2 if the command line is wrong.
    """
    from bascule.cli._call import tls_of
    from bascule.cli.doctor import Level
    from bascule.cli.doctor._certificates import Certificates, checks_of_certificates
    from bascule.cli.doctor._clocks import look_at_steps
    from bascule.cli.doctor._examine import Check
    from bascule.cli.doctor._gateway import checks_of_gateway
    from bascule.cli.doctor._here import checks_of_machine
    from bascule.cli.doctor._print import print_findings, write_findings
    from bascule.cli.doctor._project import checks_of_apps, checks_of_ports, nothing_named
    from bascule.cli.doctor._servers import Servers, checks_of_servers

    folder = str(Path.cwd())  # modules that a gateway's file names are looked for here first
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # What is logged is told as well by what comes back.
    logging.getLogger("bascule").addHandler(logging.NullHandler())
    with ending("doctor"):
        trusted = tls_of(cacert, cert, key, server_name, wanted=tls, insecure=False)
        servers = Servers(
            consul=tuple(consul or ()),
            redis=tuple(redis or ()),
            databases=tuple(database or ()),
            otlp=tuple(otlp or ()),
            targets=tuple(target or ()),
            urls=tuple(url or ()),
            jwks=tuple(jwks or ()),
            timeout=timeout,
            tls=trusted,
            environment=os.environ,
        )
        certificates = Certificates(
            files=tuple(certificate or ()),
            keys=tuple(certificate_key or ()),
            servers=tuple(tls_server or ()),
            authorities=cacert,
            client=trusted,
        )
        checks = [
            *checks_of_machine(),
            *checks_of_apps(apps or ()),
            *(check for file in config or () for check in checks_of_gateway(file, timeout=timeout)),
            *checks_of_ports(port or ()),
            *checks_of_servers(servers, every_kind=True),
            Check("clocks", "this machine", look_at_steps),
            *checks_of_certificates(certificates),
        ]
        for topic, option in (
            ("project", "MODULE:APP, or -c gateway.toml"),
            ("ports", "--port PORT or --port HOST:PORT"),
            ("certificates", "--certificate PEM, --tls-server HOST:PORT"),
        ):
            if all(check.topic != topic for check in checks):
                checks.append(nothing_named(topic, option))
        findings = anyio.run(_examine, checks, timeout, backend=loop.value)
    (write_findings if as_json else print_findings)(findings)
    if any(finding.level is Level.FAILED for finding in findings):
        raise typer.Exit(FAILED)


async def _examine(checks: list[Check], timeout: float) -> list[Finding]:
    from bascule.cli.doctor import examine

    # What waits for a server's answer says so itself, before it is given up.
    return await examine(checks, timeout=timeout + 1.0)
