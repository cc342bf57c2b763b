"""``bascule gateway``: a gateway that a file describes, as this process."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from bascule.cli._call import Loop
from bascule.cli._ending import ending
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bascule.gateway import Gateway, GatewayFile

__all__ = ["gateway"]


def gateway(
    file: Annotated[
        Path, typer.Option("-c", "--config", metavar="FILE", help="The TOML file.")
    ] = Path("gateway.toml"),
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Check the file, print its routes, and do not serve.")
    ] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="Print all keys that a file may have, as Markdown.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="SUBJECT",
            help="Print a token of this subject, signed by the file's development key, and do not serve.",
        ),
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="What that token permits; may be repeated.")
    ] = None,
    loop: Annotated[Loop, typer.Option(help="The event loop.")] = Loop.ASYNCIO,
) -> None:
    """Run the gateway that a file describes, until SIGTERM or Ctrl-C.

    It starts without its services. Modules that the file names are looked for here first.
    The exit code is 0 if it was told to stop and did so in order, 1 if it failed, 2 if the file
    is wrong, and 128 + the signal's number if it was told twice.
    """
    from bascule.app import GatewayApp, run, settle_memory
    from bascule.gateway import GatewayFile
    from bascule.gateway._file_reference import reference
    from bascule.observe import configure_logging

    if keys:
        typer.echo(reference())
        return
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with ending("gateway"):
        if check:
            with TemporaryDirectory() as scratch:
                found = GatewayFile.read(file, development=scratch)
                for line in _account(found, found.gateway()):
                    typer.echo(line)
            return
        found = GatewayFile.read(file)
        if token is not None:
            typer.echo(_token(found, token, scope or []))
            return
        configure_logging(found.log.format, level=found.log.level)
        life = GatewayApp.of(found)
    settle_memory()
    code = anyio.run(run, life, backend=loop.value)
    if code:
        raise typer.Exit(code)


def _token(file: GatewayFile, subject: str, scopes: list[str]) -> str:
    if file.development_key is None:
        message = (
            f"{file.path}: auth.development is not given: its issuer makes the tokens, not bascule"
        )
        raise ConfigurationError(message)
    return file.development_key.mint_token(subject, scopes=scopes)


def _account(file: GatewayFile, gateway: Gateway) -> Iterator[str]:
    """What it would serve: a line for each route."""
    config = file.config
    listen = config.listen if isinstance(config.listen, str) else ", ".join(config.listen)
    tls = "plain text" if config.tls is None else "TLS"
    yield f"{file.path}: {len(gateway.bindings)} routes at {listen} ({tls})"
    rows = []
    for binding in gateway.bindings:
        route = config.settings(binding.rpc_path)
        access = "public" if route.public else " ".join(["token", *sorted(route.scopes)])
        target = config.upstream(binding.service).target
        path = binding.rpc_path.removeprefix("/")
        rows.append(
            (binding.http_method, binding.template, path, access, f"{route.timeout:g} s", target)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{each:{width}}" for each, width in zip(row, widths, strict=True)).rstrip()
