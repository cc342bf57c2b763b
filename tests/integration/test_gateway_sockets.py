"""The gateway as an independent client sees it: httpx over TLS, HTTP/2 and HTTP/1.1."""

from __future__ import annotations

import io
import json
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from bascule.discovery import Endpoint, MemoryRegistry
from bascule.gateway import DevelopmentKey, LimitConfig, LineLog
from bascule.net import ServerTLS, development_certificate
from bascule.rpc import Server
from bascule_shop._generated import product, user
from bascule_shop._generated.product.services import ProductServiceBase
from bascule_shop._generated.user.services import UserServiceBase
from bascule_shop.gateway import SERVICES, shop_gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bascule.gateway import Gateway

pytestmark = pytest.mark.anyio


class Users(UserServiceBase):
    async def get_user(self, request: user.GetUserRequest) -> user.User:
        return user.User(id=request.id)


class Products(ProductServiceBase):
    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.cancelled = anyio.Event()

    async def get_product(self, request: product.GetProductRequest) -> product.Product:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.set()
        raise AssertionError

    async def list_products(
        self, request: product.ListProductsRequest
    ) -> product.ListProductsResponse:
        return product.ListProductsResponse(
            products=[product.Product(id=str(n)) for n in range(request.page_size)]
        )


class Running:
    def __init__(self, gateway: Gateway, products: Products, token: str, verify: ssl.SSLContext):
        self.gateway = gateway
        self.products = products
        self.token = token
        self.verify = verify

    def client(self, version: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"https://{self.gateway.addresses[0]}",
            verify=self.verify,
            http1=version == "HTTP/1.1",
            http2=version == "HTTP/2",
            headers={"authorization": f"Bearer {self.token}"},
            trust_env=False,
        )


@asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    certificate, key_file = development_certificate(tmp_path)
    key = DevelopmentKey(tmp_path)
    registry = MemoryRegistry()
    products = Products()
    async with Server([Users(), products], listen="127.0.0.1:0", grace=0.0) as server:
        for service in SERVICES:
            registry.register(service, Endpoint(server.addresses[0]))
        gateway = shop_gateway(
            key.auth,
            listen="127.0.0.1:0",
            tls=ServerTLS(certificate, key_file),
            registry=registry,
            subject_limit=LimitConfig(requests=10_000),
            access_log=LineLog(io.BytesIO()),
            grace=0.0,
        )
        async with gateway:
            verify = ssl.create_default_context(cafile=certificate)
            yield Running(gateway, products, key.mint_token("user-1"), verify)


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/1.1"])
async def test_requests_over_tls(tmp_path: Path, version: str) -> None:
    async with running(tmp_path) as shop, shop.client(version) as client:
        for n in range(3):
            response = await client.get(f"/api/v1/users/{n}")
            assert (response.http_version, response.status_code) == (version, 200)
            assert response.json() == {"id": str(n)}
        head = await client.head("/api/v1/users/7")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(
            len(json.dumps({"id": "7"}, separators=(",", ":")))
        )


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/1.1"])
async def test_a_bad_request_is_answered_and_the_connection_lives_on(
    tmp_path: Path, version: str
) -> None:
    async with running(tmp_path) as shop, shop.client(version) as client:
        bad = await client.post("/api/v1/users", json={"emial": "a"})
        assert (bad.status_code, bad.json()["code"]) == (400, 3)
        assert bad.json()["details"][0]["fieldViolations"][0]["field"] == "emial"
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.put("/api/v1/users")).status_code == 405
        assert (
            await client.get("/api/v1/users/1", headers={"authorization": "x"})
        ).status_code == 401
        assert (await client.get("/api/v1/users/1")).status_code == 200


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/1.1"])
async def test_too_much_is_refused(tmp_path: Path, version: str) -> None:
    async with running(tmp_path) as shop, shop.client(version) as client:
        large = await client.post(
            "/api/v1/users",
            content=b"x" * (1024 * 1024 + 1),
            headers={"content-type": "application/json"},
        )
        assert (large.status_code, large.json()["code"]) == (413, 3)
        long = await client.get("/api/v1/users/1", headers={"x-filler": "x" * 33_000})
        assert long.status_code == 431  # over HTTP/2, the engine answers by itself
        assert (await client.get("/api/v1/users/1")).status_code == 200


async def test_a_hundred_at_once_on_one_connection(tmp_path: Path) -> None:
    answers: dict[int, int] = {}
    async with running(tmp_path) as shop, shop.client("HTTP/2") as client:

        async def ask(n: int) -> None:
            response = await client.get("/api/v1/products", params={"pageSize": n})
            answers[n] = len(response.json()["products"])

        async with anyio.create_task_group() as tasks:
            for n in range(1, 101):
                tasks.start_soon(ask, n)
    assert answers == {n: n for n in range(1, 101)}


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/1.1"])
async def test_a_client_that_leaves_cancels_the_call_upstream(tmp_path: Path, version: str) -> None:
    async with running(tmp_path) as shop:
        async with shop.client(version) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.get, "/api/v1/products/1")
            await shop.products.begun.wait()
            tasks.cancel_scope.cancel()
        # httpx resets no stream; over HTTP/2 the gateway learns it when the connection ends.
        await shop.products.cancelled.wait()


async def test_an_error_of_the_body_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with running(tmp_path):
            raise LookupError("mine")


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/1.1"])
async def test_metrics_over_the_wire(tmp_path: Path, version: str) -> None:
    async with running(tmp_path) as shop, shop.client(version) as client:
        await client.get("/api/v1/users/1")
        text = (await client.get("/metrics")).text
        assert (
            'http_requests_total{method="GET",route="/api/v1/users/{id}",status="200"} 1.0' in text
        )
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.get("/readyz")).text == "ready\n"
