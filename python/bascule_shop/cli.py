"""The shop's command line: arguments and output only."""

from __future__ import annotations

import os
import socket
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from bascule.errors import BasculeError, ConfigurationError, DatabaseUnavailableError
from bascule_shop.migrations import METADATA, migrate

if TYPE_CHECKING:
    from bascule.app import App, GatewayApp

__all__ = ["main"]


class Loop(StrEnum):
    """The event loops."""

    ASYNCIO = "asyncio"
    TRIO = "trio"


app = typer.Typer(
    help="Operates the reference shop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
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
            " variable SHOP_DATABASE_SERVICE holds the URL, or SHOP_DATABASE_SERVICE_FILE names a file that does,"
            " so that its password is in no list of processes."
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Folder of the SQLite files of services without a URL.")
    ] = Path("shop-data"),
    patience: Annotated[
        float, typer.Option(help="Seconds to try again while a database cannot be reached.")
    ] = 0.0,
) -> None:
    """Bring databases up to date. It may run at several places at once."""
    try:
        urls = _urls(services or list(METADATA), database or [], data)
        for service, url in urls.items():
            anyio.run(_migrate_with_patience, service, url, patience)
            typer.echo(f"{service}: up to date")
    except BasculeError as error:
        typer.echo(f"bascule_shop: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def serve(
    name: Annotated[
        str, typer.Argument(help="Which service: user, product, payment, order, or the gateway.")
    ],
    *,
    database: Annotated[
        str | None,
        typer.Option(
            help="Its URL; by default what SHOP_DATABASE_NAME says, or the file that SHOP_DATABASE_NAME_FILE"
            " names, or a SQLite file in --data."
        ),
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of the SQLite file.")] = Path("shop-data"),
    listen: Annotated[
        str | None,
        typer.Option(
            envvar="SHOP_LISTEN",
            help="Address; port 0 is any free one. By default 127.0.0.1:50051; the gateway's is in its file.",
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(
            envvar="SHOP_ADVERTISE",
            help="Address for clients, if another; {host} in it stands for this machine's name.",
        ),
    ] = None,
    consul: Annotated[
        str | None, typer.Option(envvar="SHOP_CONSUL", help="HOST:PORT of the Consul agent.")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            envvar="SHOP_PEERS",
            help="SERVICE=TARGET of a service that is not to be found in Consul; in the environment,"
            " several with spaces between them.",
        ),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            help="URL of the Redis that events go through; by default what SHOP_EVENTS says, or the file that"
            " SHOP_EVENTS_FILE names."
        ),
    ] = None,
    operations: Annotated[
        str | None,
        typer.Option(
            envvar="SHOP_OPERATIONS", help="Address of /livez, /readyz and /metrics by HTTP."
        ),
    ] = None,
    propagation: Annotated[
        float,
        typer.Option(
            envvar="SHOP_PROPAGATION", help="Seconds between deregistering and the drain."
        ),
    ] = 1.0,
    grace: Annotated[
        float,
        typer.Option(envvar="SHOP_GRACE", help="Seconds that calls have to end in the drain."),
    ] = 30.0,
    config: Annotated[
        Path | None,
        typer.Option(help="The gateway's file; the one that comes with the shop if none."),
    ] = None,
    lease: Annotated[
        float,
        typer.Option(
            help="Seconds after which others go on with the orders of a process that died."
        ),
    ] = 30.0,
    loop: Annotated[Loop, typer.Option(help="The event loop.")] = Loop.ASYNCIO,
) -> None:
    """Run one service until SIGTERM or Ctrl-C. It starts without what is away and waits for it.

    The gateway takes --listen, --operations, --consul and --peer over what its file says.
    """
    from bascule.app import GatewayApp, run, settle_memory
    from bascule.observe import configure_logging
    from bascule_shop.gateway import gateway_file
    from bascule_shop.process import ProcessSettings, shop_app

    service: App | GatewayApp
    peers = peer or []
    try:
        if name == "gateway":
            file = gateway_file(
                config,
                listen=listen,
                operations=operations,
                consul=consul,
                peers=dict(_peer(each) for each in peers),
            )
            configure_logging(file.log.format, level=file.log.level)
            settle_memory()
            raise typer.Exit(anyio.run(run, GatewayApp.of(file), backend=loop.value))
        configure_logging("json")
        settings = ProcessSettings(
            name=name,
            database=_urls([name], [database] if database else [], data)[name],
            listen=listen or "127.0.0.1:50051",
            advertise=advertise and advertise.replace("{host}", socket.gethostname()),
            consul=consul,
            peers=dict(_peer(each) for each in peers),
            events=events or _said("SHOP_EVENTS"),
            operations=operations,
            propagation=propagation,
            grace=grace,
            lease=lease,
        )
        service = shop_app(settings)
    except ConfigurationError as error:
        typer.echo(f"bascule_shop: {error}", err=True)
        raise typer.Exit(2) from None
    settle_memory()
    raise typer.Exit(anyio.run(run, service, backend=loop.value))


async def _migrate_with_patience(service: str, url: str, patience: float) -> None:
    """Bring a database up to date; try again for so many seconds while it is away."""
    end = anyio.current_time() + patience
    while True:
        try:
            await migrate(service, url)
        except DatabaseUnavailableError as error:
            if anyio.current_time() + _PAUSE > end:
                raise
            typer.echo(f"{service}: {error}: trying again", err=True)
            await anyio.sleep(_PAUSE)
        else:
            return


#: Seconds between two attempts to reach a database.
_PAUSE = 2.0


def _peer(text: str) -> tuple[str, str]:
    name, equals, target = text.partition("=")
    if not equals or not target:
        raise ConfigurationError(f"--peer {text!r}: expected SERVICE=TARGET")
    return name, target


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
        named = given.get(service) or _said(f"SHOP_DATABASE_{service.upper()}")
        if not named:
            data.mkdir(parents=True, exist_ok=True)
        urls[service] = named or f"sqlite:///{data / service}.db"
    return urls


def _said(name: str) -> str | None:
    """Give what a variable of the environment holds, or the file that ``NAME_FILE`` names: secrets are files.

    :raises ConfigurationError: if both are set, or the file cannot be read, or is empty
    """
    path = os.environ.get(f"{name}_FILE")
    if not path:
        return os.environ.get(name) or None
    if os.environ.get(name):
        raise ConfigurationError(f"{name} and {name}_FILE are both set: unset one of them")
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{name}_FILE {path!r}: {error}") from error
    if not text:
        raise ConfigurationError(f"{name}_FILE {path!r} is empty")
    return text


def main() -> None:
    """Run the command line."""
    sys.exit(app())
