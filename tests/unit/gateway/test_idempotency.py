"""A client that goes away while its key is being marked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from bascule.gateway import IdempotencyConfig
from bascule.gateway._answers import Answer, Held, MemoryAnswers
from bascule.gateway._idempotency import Idempotency
from bascule.net import HttpResponse

if TYPE_CHECKING:
    from bascule.gateway._answers import AnswerStore

pytestmark = pytest.mark.anyio


class Slow(MemoryAnswers):
    """Marks the key, and answers late."""

    def __init__(self) -> None:
        super().__init__(10, 1_000)
        self.marked = anyio.Event()

    async def begin(self, key: str, fingerprint: bytes, token: str, hold: float) -> Held | Answer:
        found = await super().begin(key, fingerprint, token, hold)
        self.marked.set()
        await anyio.sleep(0.05)
        return found


class Endpoint:
    settings = SimpleNamespace(timeout=10.0)

    def __init__(self) -> None:
        self.served = 0

    async def answer(self, exchange: Any) -> HttpResponse:
        self.served += 1
        await anyio.lowlevel.checkpoint()
        return HttpResponse(201, [("content-type", "application/json")], b"{}")


async def test_its_request_is_served_and_the_answer_is_there_when_it_asks_again() -> None:
    """Otherwise the mark would refuse its next attempts until the route's time is over."""
    request = SimpleNamespace(method="POST", target="/orders", body=b"{}", peer="10.0.0.1:1")
    headers = {"idempotency-key": "k1", "content-type": "application/json"}
    exchange: Any = SimpleNamespace(request=request, headers=headers, identity=None, found=None)
    idempotency, endpoint = Idempotency(IdempotencyConfig(), None), Endpoint()
    slow = Slow()
    store: AnswerStore = slow
    idempotency._store = store
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(idempotency.answer, exchange, endpoint)
        await slow.marked.wait()
        tasks.cancel_scope.cancel()
    answer = await idempotency.answer(exchange, endpoint)  # type: ignore[arg-type]
    assert (answer.status, endpoint.served) == (201, 1)
    assert ("idempotency-replayed", "true") in answer.headers
