"""The ``bascule`` command and its subcommands."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import anyio
import typer

from bascule.cli._call import call
from bascule.cli._config import app as config
from bascule.cli._saga import saga
from bascule.cli._serve import serve

__all__ = ["app"]

app = typer.Typer(
    help="Microservices for Python on structured concurrency.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.command()(call)
app.command()(serve)
app.add_typer(config, name="config")
app.add_typer(saga, name="saga")


class Backend(StrEnum):
    """The event loops."""

    ASYNCIO = "asyncio"
    TRIO = "trio"


@app.callback()
def _root() -> None:
    """Without a callback, typer would make the only command the program itself."""


@app.command()
def demo(
    *,
    serve: Annotated[
        bool, typer.Option("--serve", help="Keep serving after the tour, until Ctrl-C.")
    ] = False,
    backend: Annotated[Backend, typer.Option(help="The event loop.")] = Backend.ASYNCIO,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the account as JSON on standard output.")
    ] = False,
    listen: Annotated[
        str, typer.Option(help="The gateway's address; port 0 is any free one.")
    ] = "127.0.0.1:0",
    components: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="consul,redis,mysql,mongo,jaeger",
            help="Real servers to start and use instead of what is embedded.",
        ),
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder for databases, key and certificate; a temporary one if none."),
    ] = None,
) -> None:
    """Run the shop and take a tour through its gateway.

    Starts the gateway and the user, product, payment and order services, asks them what a client
    would ask over HTTP/2 and TLS, and prints what they answered. The exit code is 1 if an answer
    differs from the expected one.
    """
    from bascule.cli._account import print_account, print_serving, write_json
    from bascule.cli._demo import Account, DemoSettings, run_demo
    from bascule.errors import BasculeError
    from bascule_shop.servers import read_components

    def report(account: Account) -> None:
        if as_json:
            write_json(account)
        else:
            print_account(account)
        if serve:
            print_serving(account)

    try:
        settings = DemoSettings(
            listen=listen,
            data=data,
            serve=serve,
            backend=backend.value,
            components=read_components(components),
        )
        ok = anyio.run(run_demo, settings, report, backend=backend.value)
    except BasculeError as error:
        typer.echo(f"bascule demo: {error}", err=True)
        raise typer.Exit(1) from error
    if not ok:
        raise typer.Exit(1)
