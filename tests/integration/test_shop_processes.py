"""One service of the shop as a process: what it does without its database, and with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx
import pytest
from tests.integration.shop_processes import FAREWELL, ServiceProcess

from bascule.errors import RpcError, Status
from bascule.rpc import Channel
from bascule_shop._generated.order import CreateOrderRequest, OrderItem
from bascule_shop._generated.order.services import OrderServiceStub
from bascule_shop._generated.product import GetProductRequest
from bascule_shop._generated.product.services import ProductServiceStub
from bascule_shop._generated.user import GetUserRequest
from bascule_shop._generated.user.services import UserServiceStub

if TYPE_CHECKING:
    from pathlib import Path

    from bascule.testing.servers import ConsulServer, MariaDBServer, MongoServer

pytestmark = pytest.mark.anyio

ADA = GetUserRequest(id="usr_ada")


async def instances(consul: ConsulServer, service: str, *, passing: bool) -> int:
    async with httpx.AsyncClient(base_url=consul.url, trust_env=False) as client:
        found = await client.get(f"/v1/health/service/{service}{'?passing' * passing}")
    return len(found.json())


async def test_it_starts_without_its_database_and_is_ready_when_that_comes(
    own_mariadb: MariaDBServer, own_consul: ConsulServer, tmp_path: Path, anyio_backend_name: str
) -> None:
    url = own_mariadb.fresh_database("user")
    await anyio.to_thread.run_sync(own_mariadb.stop)
    options = {"database": url, "consul": own_consul.address}
    with ServiceProcess("user", tmp_path, anyio_backend_name, **options) as user:
        (address,) = (await user.until("serving"))["addresses"]
        await user.until("not ready")
        answer = await user.readiness()
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert "mysql://" in answer.json()["missing"]["user"]
        assert "bascule:bascule" not in user.log, "passwords are not for logs"
        assert await instances(own_consul, "user.UserService", passing=False) == 0
        async with Channel(address) as channel:
            stub = UserServiceStub(channel)
            with pytest.raises(RpcError) as caught:
                await stub.get_user(ADA)
            assert caught.value.status is Status.UNAVAILABLE
            await anyio.to_thread.run_sync(own_mariadb.start)
            await user.until("registered")
            answer = await user.readiness()
            assert (answer.status_code, answer.json()["missing"]) == (200, {})
            assert (await stub.get_user(ADA)).display_name == "Ada Okafor"
        async with Channel(f"consul://{own_consul.address}/user.UserService") as channel:
            assert (await UserServiceStub(channel).get_user(ADA)).id == "usr_ada"
        user.terminate()
        assert await user.ended() == 0
        assert await instances(own_consul, "user.UserService", passing=False) == 0
        assert [event for event in user.events() if event in FAREWELL] == FAREWELL
        assert "Traceback" not in user.log


async def test_products_wait_for_mongodb(
    own_mongo: MongoServer, tmp_path: Path, anyio_backend_name: str
) -> None:
    server, _, query = own_mongo.url.partition("?")
    await anyio.to_thread.run_sync(own_mongo.stop)
    url = f"{server.rstrip('/')}/product?{query}"
    with ServiceProcess("product", tmp_path, anyio_backend_name, database=url) as product:
        (address,) = (await product.until("serving"))["addresses"]
        assert (await product.readiness()).status_code == 503
        await anyio.to_thread.run_sync(own_mongo.start)
        await product.until("ready")
        async with Channel(address) as channel:
            found = await ProductServiceStub(channel).get_product(GetProductRequest(id="prd_001"))
        assert found.stock == 100
        product.terminate()
        assert await product.ended() == 0


async def test_services_find_each_other_by_name_or_by_peer(
    tmp_path: Path, anyio_backend_name: str
) -> None:
    """Without any server: SQLite files, and targets that are given."""
    peers: dict[str, str] = {}
    with (
        ServiceProcess("user", tmp_path, anyio_backend_name, data=str(tmp_path)) as user,
        ServiceProcess("product", tmp_path, anyio_backend_name, data=str(tmp_path)) as product,
        ServiceProcess("payment", tmp_path, anyio_backend_name, data=str(tmp_path)) as payment,
    ):
        for process in (user, product, payment):
            (peers[process.name],) = (await process.until("serving"))["addresses"]
        arguments = [f"--peer={name}={target}" for name, target in peers.items()]
        with ServiceProcess(
            "order", tmp_path, anyio_backend_name, *arguments, data=str(tmp_path)
        ) as order:
            (address,) = (await order.until("serving"))["addresses"]
            await order.until("ready")
            async with Channel(address) as channel:
                made = await OrderServiceStub(channel).create_order(
                    CreateOrderRequest(
                        user_id="usr_ada",
                        items=[OrderItem(product_id="prd_001", quantity=1)],
                        payment_token="tok_visa",
                    )
                )
            assert made.id
            for process in (order, payment, product, user):
                process.terminate()
                assert await process.ended() == 0
                farewell = [event for event in FAREWELL if event != "deregistered"]
                assert [event for event in process.events() if event in FAREWELL] == farewell


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "no service is called 'nobody'"),
        ("order", "cannot find user, product, payment: name a Consul agent or these peers"),
    ],
)
async def test_what_cannot_work_is_said_in_one_line(tmp_path: Path, name: str, said: str) -> None:
    with ServiceProcess(name, tmp_path, "asyncio", data=str(tmp_path)) as process:
        assert await process.ended() == 2
        (line,) = process.log.splitlines()
        assert line.startswith("bascule_shop: ")
        assert said in line
