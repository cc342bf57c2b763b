"""``bascule call``: its arguments."""

from __future__ import annotations

import base64
import binascii
import math
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from bascule.cli._ending import WRONG

if TYPE_CHECKING:
    from bascule.net import ClientTLS

__all__ = ["Loop", "call", "metadata_of", "tls_of"]


class Loop(StrEnum):
    """The event loops."""

    ASYNCIO = "asyncio"
    TRIO = "trio"


def call(
    target: Annotated[
        str, typer.Argument(help="host:port, dns:///name:port, unix:/path, static:///a:1,b:2, ...")
    ],
    method: Annotated[
        str | None, typer.Argument(help="package.Service/Method; the package may be left out.")
    ] = None,
    request: Annotated[
        str,
        typer.Argument(
            metavar="JSON",
            help="The request; @FILE, or - for standard input. Streams take several.",
        ),
    ] = "{}",
    *,
    list_services: Annotated[
        bool, typer.Option("--list", help="Print the names of the services instead.")
    ] = False,
    describe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print a service, method or message instead."),
    ] = None,
    proto: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A descriptor set (protoc --include_imports --descriptor_set_out) "
            "instead of server reflection.",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "-H", "--header", metavar="'NAME: VALUE'", help="Metadata; base64 for names in -bin."
        ),
    ] = None,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Seconds for the call.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Talk TLS.")] = False,
    cacert: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Authorities to trust; implies --tls.")
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="PEM", help="The client's certificate; implies --tls.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its private key.")] = None,
    server_name: Annotated[
        str | None, typer.Option(help="Name that the server's certificate must carry.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Talk TLS and believe any certificate.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell on standard error how the call went.")
    ] = False,
    compression: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compress requests: gzip, deflate or zstd.")
    ] = None,
    service_config: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="gRPC's service config, such as retries; or @FILE."),
    ] = None,
    pretty: Annotated[bool, typer.Option("--pretty", help="Indent the replies.")] = False,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Print fields that have their default value, too.")
    ] = False,
    json_errors: Annotated[
        bool, typer.Option("--json-errors", help="Print a status other than OK as JSON.")
    ] = False,
    loop: Annotated[Loop, typer.Option(help="The event loop.")] = Loop.ASYNCIO,
) -> None:
    """Call a method of any gRPC server and print each reply as a line of JSON.

    The server describes itself by reflection (v1 or v1alpha); --proto stands in for that. A method
    that streams takes documents one after another and prints replies as they come.

    The exit code is 0 for OK, 64 + the status code for any other status (69 is NOT_FOUND, 78 is
    UNAVAILABLE), and 2 if the command line, the request or a certificate is wrong.
    """
    from bascule.cli._calling import CallSettings, run_call
    from bascule.errors import BasculeError

    try:
        settings = CallSettings(
            target=target,
            method=method,
            source=request,
            listing=list_services,
            describing=describe,
            metadata=[metadata_of(each) for each in header or ()],
            timeout=timeout,
            descriptors=proto,
            tls=tls_of(cacert, cert, key, server_name, wanted=tls, insecure=insecure),
            indent=2 if pretty else None,
            defaults=defaults,
            json_errors=json_errors,
            explain=explain,
            compression=compression,
            service_config=_text(service_config),
        )
        code = anyio.run(run_call, settings, backend=loop.value)
    except (BasculeError, OSError, ValueError) as error:  # ValueError: metadata of a reserved name
        typer.echo(f"bascule call: {error}", err=True)
        raise typer.Exit(WRONG) from error
    if code:
        raise typer.Exit(code)


def _text(source: str | None) -> str | None:
    """What an option says, or the file that it names."""
    if source is None or not source.startswith("@"):
        return source
    return Path(source[1:]).read_text(encoding="utf-8")


def metadata_of(text: str) -> tuple[str, str | bytes]:
    """Read ``NAME: VALUE``.

    :raises typer.BadParameter: if it cannot be sent
    """
    name, colon, value = text.partition(":")
    name, value = name.strip().lower(), value.strip()
    # gRPC over HTTP/2, "Custom-Metadata".
    if not colon or re.fullmatch("[0-9a-z_.-]+", name) is None:
        raise typer.BadParameter(f"-H {text!r}: expected 'NAME: VALUE'")
    if not name.endswith("-bin"):
        if not (value.isascii() and (value.isprintable() or not value)):
            raise typer.BadParameter(
                f"-H {text!r}: a value is printable ASCII, or base64 for a name in -bin"
            )
        return name, value
    try:
        # gRPC's own form leaves the padding out.
        return name, base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except binascii.Error as error:
        raise typer.BadParameter(f"-H {text!r}: the value is no base64: {error}") from error


def tls_of(
    cacert: Path | None,
    cert: Path | None,
    key: Path | None,
    server_name: str | None,
    *,
    wanted: bool,
    insecure: bool,
) -> ClientTLS | None:
    """Give what the options of a command say about TLS; None without."""
    from bascule.net import ClientTLS

    if not (wanted or insecure or cacert or cert or key or server_name):
        return None
    settings = ClientTLS(ca=cacert, certificate=cert, key=key, server_name=server_name)
    if not insecure:
        return settings
    from bascule.cli._insecure import Unverified

    return Unverified(cacert, cert, key, server_name, reload=math.inf)
