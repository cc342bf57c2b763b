"""The sample of docs/concepts/scaling.md runs on a real Temporal: on asyncio, as Temporal's library does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.pages import load

from bascule.saga import Saga

if TYPE_CHECKING:
    from bascule.testing.servers import TemporalServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Order(msgspec.Struct, frozen=True):
    order_id: str
    total: int


async def test_the_sample(temporal_server: TemporalServer) -> None:
    charged: list[int] = []

    async def charge(order: Order, call: Any) -> None:
        charged.append(order.total)

    names: dict[str, Any] = {
        "Order": Order,
        "create_order": Saga("create-order-of-the-page", Order).step("payment", charge),
    }
    page = load("docs/concepts/scaling.md", names, {"temporal:7233": temporal_server.address})
    await page.main()
    assert charged == [700]
