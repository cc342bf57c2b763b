"""The shop's gateway in front of servers that tests can look into."""

from __future__ import annotations

import io
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo

from bascule.discovery import Endpoint, MemoryRegistry
from bascule.errors import RpcError, Status
from bascule.gateway import (
    DevelopmentKey,
    Exchange,
    Gateway,
    HandlerEndpoint,
    LineLog,
    RouteConfig,
)
from bascule.net import HttpRequest, HttpResponse
from bascule.rpc import Server, call_context
from bascule_shop._generated import order, product, user
from bascule_shop._generated.order.services import OrderServiceBase
from bascule_shop._generated.product.services import ProductServiceBase
from bascule_shop._generated.user.services import UserServiceBase
from bascule_shop.gateway import SERVICES, shop_gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Users(UserServiceBase):
    """Fails in the ways that its ids and addresses say."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.cancelled = anyio.Event()
        self.begun = anyio.Event()
        self.time_left = 0.0

    async def get_user(self, request: user.GetUserRequest) -> user.User:
        context = call_context()
        self.metadata = dict(context.metadata.items())
        self.time_left = context.time_left
        if request.id == "hang":
            self.begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                self.cancelled.set()
        if request.id in Status.__members__:
            details = [RetryInfo(retry_delay=Duration(seconds=7))]
            raise RpcError(Status[request.id], f"as asked: {request.id}", details)
        return user.User(id=request.id, email="a@example.org", display_name="Grüße")

    async def create_user(self, request: user.CreateUserRequest) -> user.User:
        self.metadata = dict(call_context().metadata.items())
        if not request.email:
            violation = BadRequest.FieldViolation(field="email", description="must not be empty")
            raise RpcError(
                Status.INVALID_ARGUMENT,
                "1 field is invalid",
                [BadRequest(field_violations=[violation])],
            )
        return user.User(id="a b/c", email=request.email)


class Products(ProductServiceBase):
    async def list_products(
        self, request: product.ListProductsRequest
    ) -> product.ListProductsResponse:
        return product.ListProductsResponse(
            products=[product.Product(id=str(n)) for n in range(request.page_size)]
        )


class Orders(OrderServiceBase):
    async def create_order(self, request: order.CreateOrderRequest) -> order.Order:
        subject = call_context().metadata["x-bascule-subject"]
        lines = [
            order.OrderLine(product_id=item.product_id, quantity=item.quantity)
            for item in request.items
        ]
        return order.Order(id="o-1", user_id=str(subject), lines=lines)


@dataclass
class Shop:
    gateway: Gateway
    users: Users
    token: str
    key: DevelopmentKey
    log: io.BytesIO = field(default_factory=io.BytesIO)

    async def ask(
        self,
        method: str,
        target: str,
        document: Any = None,
        *,
        token: str | None = None,
        peer: str = "192.0.2.1:4711",
        problem: str | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, str], Any]:
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        if token is not None:
            fields.append(("authorization", f"Bearer {token}"))
        body = b""
        if document is not None:
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            fields = (
                [("content-type", "application/json"), *fields]
                if "content_type" not in headers
                else fields
            )
        response = await self.gateway.handle(
            HttpRequest(method, target, fields, body, peer, "https", "2", problem)
        )
        answered = dict(response.headers)
        assert len(answered) == len(response.headers), "no header comes twice"
        text = answered["content-type"].startswith("text/")
        return (
            response.status,
            answered,
            response.body.decode() if text else json.loads(response.body),
        )


@asynccontextmanager
async def running(tmp_path: Path, **settings: Any) -> AsyncIterator[Shop]:
    users, log = Users(), io.BytesIO()
    key = DevelopmentKey(tmp_path)
    registry = MemoryRegistry()
    async with Server([users, Products(), Orders()], listen="127.0.0.1:0", grace=0.0) as server:
        for service in SERVICES:
            registry.register(service, Endpoint(server.addresses[0]))
        gateway = shop_gateway(
            key.auth,
            listen="127.0.0.1:0",
            registry=registry,
            access_log=LineLog(log),
            grace=settings.pop("grace", 0.0),
            **settings,
        )
        gateway.router.get(
            "/api/v1/python/{name}",
            HandlerEndpoint(handler, RouteConfig(scopes=frozenset({"a", "b"}))),
        )
        async with gateway:
            yield Shop(gateway, users, key.mint_token("user-1"), key, log)


async def handler(exchange: Exchange) -> HttpResponse:
    if exchange.params["name"] == "fails":
        raise ValueError("a secret of the inside")
    assert exchange.identity is not None
    body = json.dumps([exchange.params["name"], exchange.query, exchange.identity.subject]).encode()
    return HttpResponse(200, [("content-type", "application/json")], body)
