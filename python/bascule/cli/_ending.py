"""How commands end that cannot do what they were asked: in a line, with the exit code for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from bascule.errors import BasculeError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FAILED", "INTERRUPTED", "WRONG", "ending"]

#: It was asked for rightly and failed: asking again may help.
FAILED = 1
#: What was asked for cannot work. Typer ends with it, too, if arguments are wrong.
WRONG = 2
#: By Ctrl-C: 128 and the number of the signal, as shells have it.
INTERRUPTED = 130


@contextmanager
def ending(command: str) -> Iterator[None]:
    """Turn errors into a line on standard error and an exit code.

    :param command: with its own subcommand: ``config get``
    """
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BaseExceptionGroup as group:
        # trio has it come out of the task group that was interrupted.
        if group.split(KeyboardInterrupt)[1] is not None:
            raise
        raise typer.Exit(INTERRUPTED) from None
    except (BasculeError, OSError) as error:
        typer.echo(f"bascule {command}: {error}", err=True)
        wrong = isinstance(error, ConfigurationError)
        raise typer.Exit(WRONG if wrong else FAILED) from error
