"""The shop on real servers, each of which is ended and started again while customers are at work."""

from __future__ import annotations

import io
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx
import pytest
import sqlalchemy as sa
from tests.integration.shop_load import CLEAR, Load
from tests.integration.shop_processes import FAREWELL, ServiceProcess, eventually
from tests.servers import running

from bascule.events import RedisEventBus, SqlInbox, inbox_tables
from bascule.gateway import DevelopmentKey, LimitConfig, LineLog
from bascule.resilience import BreakerSettings
from bascule.sql import Database
from bascule.testing.servers import (
    ConsulServer,
    MariaDBServer,
    MongoJavaServer,
    MongoServer,
    NxMongoServer,
    RedisServer,
)
from bascule_shop._generated.order import OrderStatus
from bascule_shop._generated.payment import PaymentState
from bascule_shop._seed import PRODUCTS
from bascule_shop._services import SERVICES
from bascule_shop.gateway import shop_gateway
from bascule_shop.order import ORDER_CREATED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from bascule.events import Event
    from bascule.testing.servers import LocalServer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

#: Seconds that a server is away.
AWAY = 1.5
#: Seconds after its return in which requests may still fail.
RECOVERY = 6.0
#: Seconds without a failure that tell that it has recovered.
QUIET = 1.5

BOUGHT = [product.id for product in PRODUCTS if product.stock >= 80]

#: Which requests go on as if nothing had happened while a server is away.
UNHARMED = {
    "consul": {"order", "user", "read products", "read users", "read orders"},
    "redis": {"user", "read products", "read users", "read orders"},
    "mariadb": {"read products"},
    "mongo": {"user", "read users", "read orders"},
}


@dataclass
class Servers:
    """What the shop needs."""

    consul: ConsulServer
    redis: RedisServer
    mariadb: MariaDBServer
    mongo: MongoServer
    databases: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.databases = {
            name: self.mariadb.fresh_database(name) for name in ("user", "payment", "order")
        }
        server, _, options = self.mongo.url.partition("?")
        self.databases["product"] = f"{server.rstrip('/')}/product?{options}"

    def crash(self, name: str) -> None:
        """End a server: at once, if it promises to keep what it has acknowledged even so."""
        server: LocalServer = getattr(self, name)
        # mongo-java-server's file is not made for it.
        server.stop() if isinstance(server, MongoJavaServer) else server.kill()

    def start(self, name: str) -> None:
        getattr(self, name).start()


@pytest.fixture
def servers(anyio_backend: str) -> Iterator[Servers]:
    """One server of each kind, with the one kind of MongoDB on the one loop and the other on the other."""
    mongo: type[MongoServer] = NxMongoServer if anyio_backend == "asyncio" else MongoJavaServer
    with (
        running(ConsulServer) as consul,
        running(RedisServer) as redis,
        running(MariaDBServer) as mariadb,
        running(mongo) as products,
    ):
        yield Servers(consul, redis, mariadb, products)


@asynccontextmanager
async def serving(
    servers: Servers, folder: Path, loops: Sequence[str]
) -> AsyncIterator[dict[str, ServiceProcess]]:
    """Run every service as a process; ready and registered."""
    with ExitStack() as stack:
        processes: dict[str, ServiceProcess] = {}
        for number, name in enumerate(SERVICES):
            options = {"lease": "5"} if name == "order" else {}
            processes[name] = stack.enter_context(
                ServiceProcess(
                    name,
                    folder,
                    loops[number % 2],
                    database=servers.databases[name],
                    consul=servers.consul.address,
                    events=servers.redis.url,
                    **options,
                )
            )
        for process in processes.values():
            await process.until("registered")
        yield processes


@asynccontextmanager
async def front(servers: Servers, folder: Path) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """The gateway in this process, a client of it, and a customer's token."""
    key = DevelopmentKey(folder)
    plenty = LimitConfig(requests=1_000_000)
    gateway = shop_gateway(
        key.auth,
        listen="127.0.0.1:0",
        targets={name: f"consul://{servers.consul.address}/{name}" for name in SERVICES.values()},
        redis=servers.redis.url,
        subject_limit=plenty,
        address_limit=plenty,
        breaker=BreakerSettings(timeout=0.5, success_threshold=1),
        access_log=LineLog(io.BytesIO()),
        grace=1.0,
    )
    async with (
        gateway,
        httpx.AsyncClient(
            base_url=f"http://{gateway.addresses[0]}", timeout=20.0, trust_env=False
        ) as client,
    ):
        yield client, key.mint_token("usr_ada")


@asynccontextmanager
async def mailer(servers: Servers, folder: Path) -> AsyncIterator[Callable[[], Any]]:
    """A consumer of ``order.created``; gives what tells how often it had an effect, by order."""
    metadata = sa.MetaData()
    inbox_tables(metadata)
    letters = sa.Table("letters", metadata, sa.Column("order_id", sa.String(64)))

    def effect(connection: sa.Connection, event: Event[Any]) -> None:
        connection.execute(sa.insert(letters).values(order_id=event.payload.order_id))

    async with (
        Database(f"sqlite:///{folder / 'mailer.db'}", metadata) as database,
        RedisEventBus(servers.redis.url) as bus,
    ):
        inbox = SqlInbox(database, "mailer")
        bus.subscribe_batches(ORDER_CREATED, inbox.handler(effect), name="mailer")

        async def sent() -> Counter[str]:
            query = sa.select(letters.c.order_id)
            return Counter(await database.read(lambda c: list(c.scalars(query))))

        yield sent


async def test_restarts_of_every_server_under_load_lose_nothing(
    servers: Servers, tmp_path: Path, anyio_backend_name: str
) -> None:
    """No process dies, failures are clear, what was acknowledged is there, and the books balance."""
    loops = [anyio_backend_name, {"asyncio": "trio", "trio": "asyncio"}[anyio_backend_name]]
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        processes = await enter(serving(servers, tmp_path, loops))
        sent = await enter(mailer(servers, tmp_path))
        client, token = await enter(front(servers, tmp_path))
        load = Load(client, token, BOUGHT)
        async with anyio.create_task_group() as tasks:
            load.start(tasks)
            await until_calm(load, time.monotonic())
            for name in UNHARMED:
                await restart(servers, name, load)
                for process in processes.values():
                    assert process.process.poll() is None, f"{process.name} died: {process.log}"
            load.stop()
        await settle(load)

        orders = await books(servers, load, client)

        async def told() -> bool:
            return len(await sent()) >= len(orders)

        await eventually(told)
        assert await sent() == Counter(dict.fromkeys(orders, 1))
        await registered_again(servers)
        await depart(processes)


async def restart(servers: Servers, name: str, load: Load) -> None:
    """End a server and start it again, and hold what must go on meanwhile and what must after it."""
    begun = time.monotonic()
    await anyio.to_thread.run_sync(servers.crash, name)
    await anyio.sleep(AWAY)
    await anyio.to_thread.run_sync(servers.start, name)
    back = time.monotonic()
    await until_calm(load, back)
    failures = load.failures(begun)
    for failure in failures:
        assert failure.code in CLEAR.get(failure.status, ()), failure
    harmed = [failure for failure in failures if failure.kind in UNHARMED[name]]
    assert not harmed, f"{name}: {harmed}"
    waited = [each for each in load.answers if each.ended - each.begun > AWAY / 2]
    noticed = failures or [each for each in waited if begun < each.ended]
    assert noticed or name == "consul", f"nobody missed {name}"


async def until_calm(load: Load, since: float) -> None:
    """Wait until every kind of request succeeds, and none has failed for a while."""
    wanted = UNHARMED["consul"]
    with anyio.move_on_after(RECOVERY + QUIET) as scope:
        while True:
            now = time.monotonic()
            calm = max([since, *(each.ended for each in load.failures(since))])
            succeeded = {a.kind for a in load.answers if a.begun >= calm and a.status < 300}
            if now - calm >= QUIET and succeeded == wanted:
                break
            await anyio.sleep(0.05)
    late = load.failures(time.monotonic() - QUIET)
    assert not scope.cancelled_caught, f"still failing: {late}"


async def settle(load: Load) -> None:
    """Repeat the orders that have no final answer; each succeeds now."""
    for key, document in load.left.items():
        await eventually(partial(load.order, key, document))


async def books(servers: Servers, load: Load, client: httpx.AsyncClient) -> set[str]:
    """Compare what customers were told with what the services have kept; give the confirmed orders."""
    users = sa.text("SELECT email, id FROM users")
    async with Database(servers.databases["user"]) as database:
        kept = dict(tuple(row) for row in await database.read(lambda c: c.execute(users).all()))
    assert load.users.items() <= kept.items()

    unfinished = sa.text("SELECT * FROM saga_runs WHERE state NOT IN ('completed', 'undone')")
    query = sa.text("SELECT id, idempotency_key, status, `lines`, total_minor FROM orders")
    async with Database(servers.databases["order"]) as database:

        async def finished() -> bool:
            return not await database.read(lambda c: c.execute(unfinished).all())

        await eventually(finished)
        rows = await database.read(lambda c: c.execute(query).all())
    confirmed = {row.id: row for row in rows if row.status == OrderStatus.CONFIRMED}
    assert {row.status for row in rows} <= {OrderStatus.CONFIRMED, OrderStatus.REJECTED}
    keys = Counter(row.idempotency_key for row in confirmed.values())
    assert set(keys.values()) == {1}, "one key, two orders"
    assert set(load.orders.values()) <= set(confirmed)

    payments = sa.text("SELECT order_id, amount_minor FROM payments WHERE state = :charged")
    charged = payments.bindparams(charged=int(PaymentState.CHARGED))
    async with Database(servers.databases["payment"]) as database:
        paid = Counter(
            {
                row.order_id: row.amount_minor
                for row in await database.read(lambda c: c.execute(charged).all())
            }
        )
    assert paid == Counter({row.id: row.total_minor for row in confirmed.values()})

    sold: Counter[str] = Counter()
    for row in confirmed.values():
        for product, _name, quantity, _price in httpx.Response(200, content=row.lines).json():
            sold[product] += quantity
    for product in PRODUCTS:
        answer = (await client.get(f"/api/v1/products/{product.id}")).json()
        assert answer.get("stock", 0) == product.stock - sold[product.id], product.id
    return set(confirmed)


async def registered_again(servers: Servers) -> None:
    """Consul knows every service, and finds it healthy."""
    async with httpx.AsyncClient(base_url=servers.consul.url, trust_env=False) as client:

        async def known(service: str) -> bool:
            answer = await client.get(f"/v1/health/service/{service}?passing")
            return len(answer.json()) == 1

        for service in SERVICES.values():
            await eventually(partial(known, service))


async def depart(processes: dict[str, ServiceProcess]) -> None:
    """Each leaves in order when it is told to, and has never been at a loss."""
    for process in reversed(processes.values()):
        process.terminate()
        assert await process.ended() == 0, process.log
        events = process.events()
        assert [event for event in events if event in FAREWELL] == FAREWELL
        assert "Traceback" not in process.log
        assert all("event" in entry for entry in process.entries()), process.log
        assert not [entry for entry in process.entries() if entry.get("level") == "error"]
