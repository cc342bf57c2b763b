"""bascule's client passes every interoperability case against grpc-go's server."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio
import pytest
from benches.harness.process import serving
from tests.interop import cases
from tests.tools import tool

from bascule.net import ClientTLS
from bascule.rpc import Channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.certificates import Certificates

pytestmark = pytest.mark.anyio


class GrpcGo:
    """Servers that run, and how to reach them."""

    def __init__(self, addresses: list[str], tls: ClientTLS | None) -> None:
        self.addresses = addresses
        self.tls = tls

    def connect(self) -> Channel:
        """Make a channel to one of them."""
        return Channel(self.addresses[0], tls=self.tls)


@pytest.fixture(scope="module", params=[False, True], ids=["h2c", "tls"])
def servers(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[GrpcGo]:
    program = str(tool("grpc-interop-server"))
    tls = ClientTLS(certificates.ca) if request.param else None
    options = ["-certificate", str(certificates.certificate), "-key", str(certificates.key)]
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                serving([program, "-name", name, *(options if request.param else ())], None)
            )
            for name in ("one", "two")
        ]
        yield GrpcGo([each.address for each in running], tls)


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.__name__)
async def test_case(case: Callable[[Channel], Awaitable[None]], servers: GrpcGo) -> None:
    with anyio.fail_after(100):
        async with servers.connect() as channel:
            await case(channel)


async def test_channel_soak(servers: GrpcGo) -> None:
    with anyio.fail_after(100):
        await cases.channel_soak(servers.connect)


async def test_pick_first_unary(servers: GrpcGo) -> None:
    target = f"static:///{','.join(servers.addresses)}"
    async with Channel(target, balancer="pick_first", tls=servers.tls) as channel:
        await cases.pick_first_unary(channel)
