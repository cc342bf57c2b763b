"""Looks again and again, until somebody leaves."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from bascule.cli._http import http_client
from bascule.cli.top._frame import History
from bascule.cli.top._scrape import scrape_all

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

    from bascule.cli.top._frame import Frame

__all__ = ["watch"]

#: What the parser reads. OpenMetrics is another one.
_FORMAT = "text/plain;version=0.0.4"


async def watch(
    urls: Sequence[str],
    show: Callable[[Frame], None],
    *,
    interval: float,
    timeout: float,
    tls: ssl.SSLContext | None = None,
    frames: int | None = None,
    attended: bool = False,
    keyboard: bool = False,
) -> None:
    """Show a frame every ``interval`` seconds.

    :param frames: leave after so many, of which only the last one is shown: rates need two; None to
        go on until cancelled
    :param attended: leave in order when the process is told to end, or by Ctrl-C
    :param keyboard: leave when q is pressed, too
    """
    history = History(urls)
    async with (
        http_client(timeout=timeout, tls=tls, base={"accept": _FORMAT}) as client,
        anyio.create_task_group() as tasks,
    ):
        if attended:
            tasks.start_soon(_wait_for_signal, tasks.cancel_scope)
        if keyboard:
            tasks.start_soon(_wait_for_q, tasks.cancel_scope)
        count = 0
        while True:
            begun = anyio.current_time()
            frame = history.take(await scrape_all(client, urls, timeout=timeout), at=time.time())
            count += 1
            if frames is None or count == frames:
                show(frame)
            if count == frames:
                break
            await anyio.sleep(max(0.0, begun + interval - anyio.current_time()))
        tasks.cancel_scope.cancel()


async def _wait_for_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


async def _wait_for_q(scope: anyio.CancelScope) -> None:
    """Cancel when q is pressed, if standard input is a terminal."""
    with _unbuffered() as readable:
        while readable:
            await anyio.wait_readable(sys.stdin)
            # Not by sys.stdin, which would keep what was pressed at the same time to itself.
            pressed = os.read(sys.stdin.fileno(), 64)
            if not pressed or b"q" in pressed.lower():
                scope.cancel()
                return


@contextmanager
def _unbuffered() -> Iterator[bool]:
    """Have keys come one by one, without being shown; false if this is no terminal."""
    if not sys.stdin.isatty():
        yield False
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
