"""``bascule demo``: the shop in this process, and a tour through it."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import anyio
import typer

from bascule.cli._call import Loop
from bascule.cli._ending import FAILED, ending

__all__ = ["demo"]


def demo(
    *,
    serve: Annotated[
        bool, typer.Option("--serve", help="Keep serving after the tour, until Ctrl-C.")
    ] = False,
    loop: Annotated[
        Loop, typer.Option("--loop", "--backend", help="The event loop.")
    ] = Loop.ASYNCIO,
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
            metavar="consul,redis,mysql,mongo,jaeger,prometheus",
            help="Real servers to start and use instead of what is embedded, or to watch it.",
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
    differs from the expected one, and 2 if a server that --with names cannot be had.
    """
    from bascule.cli._account import print_account, print_serving, write_json
    from bascule.cli._demo import Account, DemoSettings, run_demo
    from bascule_shop.servers import read_components

    def report(account: Account) -> None:
        if as_json:
            write_json(account)
        else:
            print_account(account)
        if serve:
            print_serving(account)

    with ending("demo"):
        settings = DemoSettings(
            listen=listen,
            data=data,
            serve=serve,
            backend=loop.value,
            components=read_components(components),
        )
        ok = anyio.run(run_demo, settings, report, backend=loop.value)
    if not ok:
        raise typer.Exit(FAILED)
