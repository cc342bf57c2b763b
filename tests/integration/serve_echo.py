"""An app for ``bascule serve``: its database is a file, and it tells on stderr when it closes it."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from tests.generated.echo_bascule import EchoBase
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.app import App, Resource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def open_file() -> AsyncIterator[str]:
    path = anyio.Path(os.environ["ECHO_FILE"])
    yield await path.read_text()
    sys.stderr.write(f"closed {path.name}\n")


class Echo(EchoBase):
    """Its text is the number of seconds that it takes."""

    async def unary(self, request: EchoRequest) -> EchoReply:
        await anyio.sleep(float(request.text))
        return EchoReply(text=file.get())


file = Resource("file", open_file)


def app() -> App:
    return App("echo", [Echo()], "127.0.0.1:0", resources=[file], propagation=0.2, grace=20.0)
