"""``bascule serve``: an app of the user's own as this process."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from bascule.cli._call import Loop
from bascule.cli._ending import ending
from bascule.cli._target import imported
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from bascule.app import App

__all__ = ["serve"]


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    CONSOLE = "console"


def serve(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:APP",
            help="An App, or a function that returns one; modules are looked for here first.",
        ),
    ],
    *,
    loop: Annotated[Loop, typer.Option(help="The event loop.")] = Loop.ASYNCIO,
    log: Annotated[LogFormat, typer.Option(help="How log lines look.")] = LogFormat.JSON,
    log_level: Annotated[str, typer.Option(help="The least severe lines to show.")] = "info",
) -> None:
    """Run a service until SIGTERM or Ctrl-C.

    The exit code is 0 if it was told to stop and did so in order, 1 if it failed, 2 if a setting
    is wrong, and 128 + the signal's number if it was told twice.
    """
    from bascule.app import run, settle_memory
    from bascule.observe import configure_logging

    with ending("serve"):
        configure_logging(log.value, level=log_level)
        app = _load(target)
    settle_memory()
    code = anyio.run(run, app, backend=loop.value)
    if code:
        raise typer.Exit(code)


def _load(target: str) -> App:
    """:raises ConfigurationError: if there is no app"""
    from bascule.app import App

    found = imported(target, "APP", "shop.user:app")
    app = found() if callable(found) else found
    if not isinstance(app, App):
        message = f"{target!r} is {type(app).__name__}, not a bascule.app.App or a function that returns one"
        raise ConfigurationError(message)
    return app
