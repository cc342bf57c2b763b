"""The ``bascule`` command and its subcommands."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from bascule.cli._bench import bench
from bascule.cli._call import call
from bascule.cli._config import app as config
from bascule.cli._demo_command import demo
from bascule.cli._doctor import doctor
from bascule.cli._gateway import gateway
from bascule.cli._new_command import new
from bascule.cli._saga import saga
from bascule.cli._serve import serve
from bascule.cli._top import top

__all__ = ["app"]

app = typer.Typer(
    help="Microservices for Python on structured concurrency.",
    epilog="Exit codes: 0 done; 1 failed, again may help; 2 what was asked for cannot work; 130 Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_BEGIN, _RUN, _LOOK, _MEASURE = "Begin", "Run", "Look and steer", "Measure"

app.command(rich_help_panel=_BEGIN)(demo)
app.command(rich_help_panel=_BEGIN)(new)
app.command(rich_help_panel=_BEGIN)(doctor)
app.command(rich_help_panel=_RUN)(serve)
app.command(rich_help_panel=_RUN)(gateway)
app.command(rich_help_panel=_LOOK)(call)
app.command(rich_help_panel=_LOOK)(top)
app.add_typer(config, name="config", rich_help_panel=_LOOK)
app.add_typer(saga, name="saga", rich_help_panel=_LOOK)
app.command(rich_help_panel=_MEASURE)(bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bascule {version('bascule')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of the command itself."""
