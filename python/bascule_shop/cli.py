"""The shop's command line: arguments and output only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import anyio
import typer

from bascule.errors import BasculeError, ConfigurationError
from bascule_shop.migrations import METADATA, migrate

__all__ = ["main"]

app = typer.Typer(
    help="Operates the reference shop.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.callback()
def _shop() -> None:
    """Operate the reference shop."""


@app.command(name="migrate")
def migrate_command(
    services: Annotated[
        list[str] | None, typer.Argument(help="Which services; all if none is named.")
    ] = None,
    *,
    database: Annotated[
        list[str] | None,
        typer.Option(
            help="SERVICE=URL, or just the URL where one service is named. Without it, the environment"
            " variable SHOP_DATABASE_SERVICE holds the URL, so that its password is in no list of processes."
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Folder of the SQLite files of services without a URL.")
    ] = Path("shop-data"),
) -> None:
    """Bring databases up to date. It may run at several places at once."""
    try:
        urls = _urls(services or list(METADATA), database or [], data)
        for service, url in urls.items():
            anyio.run(migrate, service, url)
            typer.echo(f"{service}: up to date")
    except BasculeError as error:
        typer.echo(f"bascule_shop: {error}", err=True)
        raise typer.Exit(1) from None


def _urls(services: list[str], databases: list[str], data: Path) -> dict[str, str]:
    given: dict[str, str] = {}
    for each in databases:
        service, equals, url = each.partition("=")
        if equals and service in METADATA:
            given[service] = url
        elif len(services) == 1:
            given[services[0]] = each
        else:
            raise ConfigurationError(
                "--database needs SERVICE=URL unless exactly one service is named"
            )
    if stray := given.keys() - set(services):
        raise ConfigurationError(
            f"--database names {', '.join(sorted(stray))}, which is not to be migrated"
        )
    urls: dict[str, str] = {}
    for service in services:
        named = given.get(service) or os.environ.get(f"SHOP_DATABASE_{service.upper()}")
        if not named:
            data.mkdir(parents=True, exist_ok=True)
        urls[service] = named or f"sqlite:///{data / service}.db"
    return urls


def main() -> None:
    """Run the command line."""
    sys.exit(app())
