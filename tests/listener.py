"""A listener that loses no connection when its test ends."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@asynccontextmanager
async def listening(
    serve: Callable[[SocketStream], Awaitable[None]], port: int = 0
) -> AsyncIterator[int]:
    """Give every connection to a task; the port. What still runs in the end is cancelled.

    anyio's own listener, cancelled on asyncio in the turn in which a client comes, leaves that connection
    open, or reports that it may not set the result of what is cancelled.
    """
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.setblocking(False)

        async def accept() -> None:
            while True:
                await anyio.wait_readable(listener)
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    continue
                try:
                    with anyio.CancelScope(shield=True):
                        stream = await SocketStream.from_socket(connection)
                except (OSError, ValueError):  # It has gone again.
                    connection.close()
                    continue
                tasks.start_soon(converse, stream)

        async def converse(stream: SocketStream) -> None:
            async with stream:
                await serve(stream)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept)
            yield listener.getsockname()[1]
            tasks.cancel_scope.cancel()
