"""``bascule config``: look at configuration, change it, and go back."""

from __future__ import annotations

import getpass
import logging
import socket
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import msgspec
import typer

from bascule.cli._call import Loop
from bascule.cli._ending import ending
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bascule.config import Revision, WritableSource

__all__ = ["app"]

app = typer.Typer(help="Look at configuration, change it, and go back.", no_args_is_help=True)

Sources = Annotated[
    list[str],
    typer.Option(
        "--source",
        help="file:PATH, env:PREFIX, consul:///config/NAME or consul://host:port/config/NAME; "
        "of several, a later one goes before an earlier one.",
    ),
]
OneSource = Annotated[
    str, typer.Option("--source", help="file:PATH, consul:///config/NAME or consul://host:port/...")
]
Who = Annotated[str | None, typer.Option(help="Who makes the change; you at this machine if none.")]
LoopOption = Annotated[Loop, typer.Option(help="The event loop.")]

#: Parts of names whose values are not shown.
_SECRET = ("password", "secret", "token", "credential", "private_key", "api_key")


@app.command()
def get(
    key: Annotated[str, typer.Argument(help="Dotted key; all if none.")] = "",
    *,
    source: Sources,
    default: Annotated[
        str | None, typer.Option(help="What to print if there is no such key.")
    ] = None,
    loop: LoopOption = Loop.ASYNCIO,
) -> None:
    """Print a value as JSON. Values that look like secrets, and files that hold them, stay hidden.

    The exit code is 1 if there is no such key and no default, or a source cannot be reached.
    """
    _run("get", partial(_get, key, source, default), loop)


@app.command(name="set")
def set_(
    key: Annotated[str, typer.Argument(help="Dotted key, such as server.port.")],
    value: Annotated[
        str | None, typer.Argument(help="JSON; what is none is taken as text.")
    ] = None,
    *,
    source: OneSource,
    unset: Annotated[bool, typer.Option("--unset", help="Take the key away.")] = False,
    by: Who = None,
    loop: LoopOption = Loop.ASYNCIO,
) -> None:
    """Change a value, and keep who did and what it was."""
    from bascule.config import MISSING

    if (value is None) is not unset:
        message = "give a value, or --unset"
        raise typer.BadParameter(message)
    new = MISSING if value is None else _value(value)

    async def change(writable: WritableSource) -> None:
        _print_revision(await writable.set(key, new, by=by or _me()))

    _run("set", partial(_with_writable, source, change), loop)


@app.command()
def history(
    *,
    source: OneSource,
    limit: Annotated[int, typer.Option(min=1, help="How many, from the newest.")] = 20,
    loop: LoopOption = Loop.ASYNCIO,
) -> None:
    """Print the last changes, the newest first, a line of JSON each."""

    async def show(writable: WritableSource) -> None:
        for revision in await writable.history(limit):
            _print_revision(revision)

    _run("history", partial(_with_writable, source, show), loop)


@app.command()
def rollback(
    revision: Annotated[str, typer.Argument(help="The id of a revision, as history prints it.")],
    *,
    source: OneSource,
    by: Who = None,
    loop: LoopOption = Loop.ASYNCIO,
) -> None:
    """Make everything as it was after a revision. That is a change too: it can be rolled back."""

    async def change(writable: WritableSource) -> None:
        _print_revision(await writable.rollback(revision, by=by or _me()))

    _run("rollback", partial(_with_writable, source, change), loop)


@app.command()
def watch(
    key: Annotated[str, typer.Argument(help="Dotted key; all if none.")] = "",
    *,
    source: Sources,
    loop: LoopOption = Loop.ASYNCIO,
) -> None:
    """Print a value as a line of JSON, and again whenever it changes, until Ctrl-C."""
    _run("watch", partial(_watch, key, source), loop)


async def _get(key: str, sources: Sequence[str], default: str | None) -> int:
    from bascule.config import MISSING, Config, source_from

    async with Config(dict[str, Any], [source_from(each) for each in sources]) as config:
        found = config.get(key, MISSING) if key else config.current
        problems = config.problems
    for problem in problems:
        typer.echo(f"bascule config get: {problem}", err=True)
    if found is MISSING:
        if default is None:
            typer.echo(f"bascule config get: there is no {key!r}", err=True)
            return 1
        found = _value(default)
    shown = _hide(found, key.rpartition(".")[2])
    typer.echo(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
    return 1 if problems else 0


async def _watch(key: str, sources: Sequence[str]) -> int:
    from bascule.config import Config, source_from

    said: bytes | None = None

    def tell() -> None:
        nonlocal said
        shown = _hide(config.get(key) if key else config.current, key.rpartition(".")[2])
        line = msgspec.json.encode(shown)
        if line != said:
            said = line
            typer.echo(line.decode())

    async with Config(dict[str, Any], [source_from(each) for each in sources]) as config:
        changes = config.changes()
        tell()
        async for _ in changes:
            tell()
    return 0


async def _with_writable(source: str, use: Callable[[WritableSource], Awaitable[None]]) -> int:
    from bascule.config import WritableSource, source_from

    found = source_from(source)
    if not isinstance(found, WritableSource):
        message = f"{source}: it cannot be changed, and has no history"
        raise ConfigurationError(message)
    await use(found)
    return 0


def _run(command: str, main: Callable[[], Awaitable[int]], loop: Loop) -> None:
    # What is logged is told as well by what comes back.
    logging.getLogger("bascule").addHandler(logging.NullHandler())
    with ending(f"config {command}"):
        code = anyio.run(main, backend=loop.value)
    if code:
        raise typer.Exit(code)


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _print_revision(revision: Revision) -> None:
    entry = {
        "id": revision.id,
        "at": datetime.fromtimestamp(revision.at, UTC).isoformat(timespec="seconds"),
        "by": revision.by,
        "changes": {
            key: [_hide(each, key.rpartition(".")[2]) for each in values]
            for key, values in revision.changes.items()
        },
    }
    if revision.rollback:
        entry["rollback"] = revision.rollback
    typer.echo(msgspec.json.encode(entry).decode())


def _hide(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {inner: _hide(each, inner) for inner, each in value.items()}
    secret = any(each in name.lower() for each in _SECRET) and not name.endswith("_file")
    return "***" if secret and value is not None else value


def _me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"
