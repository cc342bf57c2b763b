"""Run in a clean environment: every public package, and a call on the loop that is named."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import anyio
from google.protobuf.wrappers_pb2 import StringValue

import bascule
from bascule.rpc import Cardinality, Channel, Method, MethodHandler, Server

HELLO = Method("/hello.Greeter/Hello", Cardinality.UNARY_UNARY, StringValue, StringValue)


class Greeter:
    async def hello(self, name: StringValue) -> StringValue:
        return StringValue(value=f"Hello, {name.value}!")

    def __mapping__(self) -> dict[str, MethodHandler]:
        return {HELLO.path: MethodHandler.unary(HELLO, self.hello)}


async def main() -> None:
    async with (
        Server([Greeter()], listen="127.0.0.1:0") as server,
        Channel(server.addresses[0]) as channel,
    ):
        answer = await channel.unary(HELLO, StringValue(value=sys.argv[1]))
        sys.stdout.write(answer.value)


for module in pkgutil.iter_modules(bascule.__path__):
    importlib.import_module(f"bascule.{module.name}")
anyio.run(main, backend=sys.argv[1])
