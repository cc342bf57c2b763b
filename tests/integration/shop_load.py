"""Customers of the shop, and a book of all that they were told."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    import httpx
    from anyio.abc import TaskGroup

#: Seconds between two requests of one customer.
PAUSE = 0.05

#: What a customer may be told who is to come again: conflict, too many, unavailable, late.
CLEAR = {409: {10}, 429: {8}, 503: {14}, 504: {4}}

#: How often a customer asks for the same order before leaving it for later.
TRIES = 40


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request was answered, and when.

    :ivar kind: of the request
    :ivar code: of the ``google.rpc.Status`` in the body of an error
    """

    kind: str
    begun: float
    ended: float
    status: int
    code: int | None = None
    message: str = ""


@dataclass
class Load:
    """Customers at work until :meth:`stop`.

    :ivar answers: to every request
    :ivar users: acknowledged ones: their id by their address
    :ivar orders: acknowledged ones: their id by their idempotency key
    :ivar left: orders without a final answer: the document by the idempotency key
    """

    client: httpx.AsyncClient
    token: str
    products: list[str]
    answers: list[Answer] = field(default_factory=list)
    users: dict[str, str] = field(default_factory=dict)
    orders: dict[str, str] = field(default_factory=dict)
    left: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False

    def start(self, tasks: TaskGroup, *, buyers: int = 3) -> None:
        self._shelf = itertools.cycle(self.products)
        for number in range(buyers):
            tasks.start_soon(self._buy, f"buyer-{number}")
        tasks.start_soon(self._enrol)
        for path in ("products", "users", "orders"):
            tasks.start_soon(self._read, path)

    def stop(self) -> None:
        self.stopped = True

    async def order(self, key: str, document: Any) -> bool:
        """Order once; tell whether it was acknowledged."""
        status, body = await self._ask("order", "POST", "orders", document, key)
        if status != 201:
            return False
        assert self.orders.setdefault(key, body["id"]) == body["id"], "one key, two orders"
        return True

    async def _buy(self, name: str) -> None:
        for number in itertools.count():
            key = f"{name}-{number}"
            item = {"productId": next(self._shelf), "quantity": 1}
            document = {"items": [item], "paymentToken": "tok_visa"}
            for _ in range(TRIES):
                if self.stopped:
                    return
                if await self.order(key, document):
                    break
                await anyio.sleep(2 * PAUSE)
            else:
                self.left[key] = document
            await anyio.sleep(PAUSE)

    async def _enrol(self) -> None:
        for number in itertools.count():
            if self.stopped:
                return
            address = f"customer-{number}@example.com"
            document = {"email": address, "displayName": "Customer", "password": "long enough"}
            status, body = await self._ask("user", "POST", "users", document)
            if status == 201:
                self.users[address] = body["id"]
            await anyio.sleep(2 * PAUSE)

    async def _read(self, path: str) -> None:
        for number in itertools.count():
            if self.stopped:
                return
            known = {
                "products": self.products,
                "users": ["usr_ada"],
                "orders": list(self.orders.values()),
            }[path]
            if known:
                await self._ask(f"read {path}", "GET", f"{path}/{known[number % len(known)]}")
            await anyio.sleep(PAUSE)

    async def _ask(
        self, kind: str, method: str, path: str, document: Any = None, key: str | None = None
    ) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {self.token}"}
        if key is not None:
            headers["idempotency-key"] = key
        begun = time.monotonic()
        response = await self.client.request(
            method, f"/api/v1/{path}", json=document, headers=headers
        )
        body = response.json()
        code, message = (None, "") if response.is_success else (body["code"], body["message"])
        answer = Answer(kind, begun, time.monotonic(), response.status_code, code, message)
        self.answers.append(answer)
        return response.status_code, body

    def failures(self, since: float, until: float = float("inf")) -> list[Answer]:
        """Give the failed requests that were under way between two moments."""
        return [
            answer
            for answer in self.answers
            if answer.status >= 300 and answer.ended >= since and answer.begun <= until
        ]
