"""``bascule top``: its arguments."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from bascule.cli._call import Loop
from bascule.cli._ending import FAILED, ending

if TYPE_CHECKING:
    from collections.abc import Callable

    from bascule.cli.top._frame import Frame

__all__ = ["top"]


def top(
    addresses: Annotated[
        list[str],
        typer.Argument(
            metavar="URL...", help="http://HOST:PORT of processes, /metrics if no path is given."
        ),
    ],
    *,
    interval: Annotated[
        float, typer.Option("-i", "--interval", min=0.1, help="Seconds between two looks.")
    ] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look twice, print one plain frame, and leave.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each look.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a process has to answer.")
    ] = 2.0,
    cacert: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Authorities to trust for https.")
    ] = None,
    loop: Annotated[Loop, typer.Option(help="The event loop.")] = Loop.ASYNCIO,
) -> None:
    """Watch running services: rates, faults, latencies, breakers, limits, sagas, events, discovery.

    It reads the metrics that Prometheus reads, and needs no Prometheus. Leave it with q or Ctrl-C.
    The exit code of --once is 1 if no process answered.
    """
    from bascule.cli.top._scrape import metrics_url
    from bascule.net import ClientTLS

    with ending("top"):
        urls = list(dict.fromkeys(metrics_url(each) for each in addresses))
        tls = None if cacert is None else ClientTLS(cacert).context(("http/1.1",))
    answering = 0

    def run(show: Callable[[Frame], None], *, keyboard: bool = False) -> None:
        def shown(frame: Frame) -> None:
            nonlocal answering
            answering = frame.answering
            show(frame)

        from bascule.cli.top._live import watch

        looking = partial(
            watch,
            urls,
            shown,
            interval=interval,
            timeout=timeout,
            tls=tls,
            frames=2 if once else None,
            attended=not once,
            keyboard=keyboard,
        )
        anyio.run(looking, backend=loop.value)

    with ending("top"):
        if as_json:
            run(_write)
        elif once or not sys.stdout.isatty():
            run(_print)
        else:
            _run_live(run, interval)
    if once and not answering:
        raise typer.Exit(FAILED)


def _run_live(run: Callable[..., None], interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from bascule.cli.top._view import view

    console = Console(highlight=False)
    note = f"every {interval:g} s, q to leave"
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        run(lambda frame: live.update(view(frame, note=note), refresh=True), keyboard=True)


def _print(frame: Frame) -> None:
    from rich.console import Console

    from bascule.cli.top._view import view

    Console(highlight=False).print(view(frame))


def _write(frame: Frame) -> None:
    import msgspec

    sys.stdout.buffer.write(msgspec.json.encode(frame) + b"\n")
    sys.stdout.buffer.flush()
