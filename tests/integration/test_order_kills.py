"""Orders at a shop whose order service is killed at every step and every write of its log."""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
import sqlalchemy as sa
from tests.forked import FORKED
from tests.integration.shop_forks import MOMENTS, Death, serve

from bascule.discovery import Endpoint, MemoryRegistry
from bascule.errors import BasculeError, RpcError, Status
from bascule.events import MemoryEventBus, RedisEventBus
from bascule.observe import Metrics
from bascule.rpc import Channel, Server
from bascule.saga import SagaState, SqlSagaLog
from bascule.sql import Database
from bascule_shop._generated.order import CreateOrderRequest, Order, OrderItem, OrderStatus
from bascule_shop._generated.order.services import OrderServiceStub
from bascule_shop._generated.payment import PaymentState
from bascule_shop._generated.product import ReservationState
from bascule_shop._seed import PRODUCTS, SOLD_OUT
from bascule_shop._services import SERVICES, open_payment, open_product, open_user
from bascule_shop.migrations import METADATA
from bascule_shop.order import ORDER_CREATED
from bascule_shop.order._store import SAGAS
from bascule_shop.payment import SimulatedProvider
from bascule_shop.process import ProcessSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bascule.events import Event
    from bascule_shop._generated.shop import Money

_logger = logging.getLogger(__name__)

KILLS = 100
REPLICAS = 2
CLIENTS = 6
LEASE = 0.4
#: Seconds that a process has to come to its moment; then it is killed wherever it is.
LONGEST_LIFE = 5.0
#: What there is enough of for all orders.
SOLD = [product.id for product in PRODUCTS if product.stock >= 60]
#: What is to become of an order, by its payment token and product.
GOOD, DECLINED, SHORT = "good", "declined", "short"


class Provider(SimulatedProvider):
    """Keeps account of the money that it would move."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[str, int] = {}
        self.given_back: set[str] = set()

    async def charge(self, key: str, amount: Money, token: str) -> str:
        reference = await super().charge(key, amount, token)
        assert self.taken.setdefault(reference, amount.amount_minor) == amount.amount_minor
        return reference

    async def refund(self, reference: str) -> None:
        await super().refund(reference)
        self.given_back.add(reference)

    @property
    def balance(self) -> int:
        return sum(
            minor for reference, minor in self.taken.items() if reference not in self.given_back
        )


class Replicas:
    """Processes of the order service, each replaced by the next one when it has killed itself."""

    def __init__(self, settings: ProcessSettings, folder: Path, seed: int) -> None:
        self.registry = MemoryRegistry()
        self.kills: Counter[str] = Counter()
        self.codes: list[int | None] = []
        self.opening = self.living = 0.0
        self._settings = settings
        self._log = folder / "orders.log"
        self._backends = itertools.cycle(["asyncio", "trio", "trio", "asyncio"])
        self._random = random.Random(seed)
        self._moments: list[str] = []
        self._begun = 0
        self._last: list[int] = []
        self._settled = anyio.Event()

    @property
    def over(self) -> bool:
        """Whether those that are to be killed have been."""
        return self.kills.total() >= KILLS

    async def run(self) -> None:
        """Keep them running until they end in order."""
        async with anyio.create_task_group() as tasks:
            for _ in range(REPLICAS):
                tasks.start_soon(self._keep)

    async def stop(self) -> None:
        """Tell those that run to end, when none of them is to kill itself any more."""
        await self._settled.wait()
        for pid in self._last:
            os.kill(pid, signal.SIGTERM)

    def _death(self) -> Death | None:
        """Give each moment its turn, in another order each time."""
        if self._begun >= KILLS:
            return None
        self._begun += 1
        if not self._moments:
            self._moments = self._random.sample(MOMENTS, len(MOMENTS))
        return Death(self._moments.pop(), self._random.choice([1, 1, 2, 3]))

    async def _keep(self) -> None:
        while True:
            death = self._death()
            hear, tell = FORKED.Pipe(duplex=False)
            arguments = (self._settings, next(self._backends), death, tell, self._log)
            process = FORKED.Process(target=serve, args=arguments)
            process.start()
            tell.close()
            try:
                moment = await self._follow(process, hear, mortal=death is not None)
            finally:
                process.kill()
                process.join()
                hear.close()
            if death is None:
                self.codes.append(process.exitcode)
                return
            assert process.exitcode == -signal.SIGKILL, f"it ended by itself: {process.exitcode}"
            self.kills[moment] += 1

    async def _follow(self, process: Any, hear: Any, *, mortal: bool) -> str:
        """Make a process known while it lives; tell at which moment it was killed."""
        endpoint: Endpoint | None = None
        began = anyio.current_time()
        try:
            with anyio.move_on_after(LONGEST_LIFE if mortal else float("inf")):
                while True:
                    await anyio.wait_readable(hear.fileno())
                    what, detail = hear.recv()
                    if what == "killed":
                        return str(detail)
                    endpoint = Endpoint(detail)
                    self.opening += anyio.current_time() - began
                    self.registry.register(SERVICES["order"], endpoint)
                    if not mortal:
                        self._last.append(process.pid)
                        if len(self._last) == REPLICAS:
                            self._settled.set()
        except EOFError:
            return "by itself"
        finally:
            self.living += anyio.current_time() - began
            if endpoint is not None:
                self.registry.deregister(SERVICES["order"], endpoint)
        return "anywhere"


class Customers:
    """Place one order after the other, and ask until they know what has become of it."""

    def __init__(self) -> None:
        self.answers: dict[str, Order | RpcError] = {}
        self.wanted: dict[str, str] = {}
        self.repeats = 0

    async def order(self, stub: OrderServiceStub, replicas: Replicas) -> None:
        while not replicas.over:
            number = len(self.wanted)
            key = f"key-{number}"
            self.wanted[key] = (GOOD, DECLINED, GOOD, SHORT)[number % 4]
            request = CreateOrderRequest(
                user_id="usr_ada",
                items=[OrderItem(product_id=SOLD[number % len(SOLD)], quantity=1 + number % 2)],
                payment_token="tok_declined" if self.wanted[key] == DECLINED else "tok_visa",
                idempotency_key=key,
            )
            if self.wanted[key] == SHORT:
                request.items.append(OrderItem(product_id=SOLD_OUT, quantity=1))
            while key not in self.answers:
                try:
                    self.answers[key] = await stub.create_order(request, timeout=20.0)
                except BasculeError as error:
                    if isinstance(error, RpcError) and is_final(error):
                        self.answers[key] = error
                    else:
                        self.repeats += 1
                        await anyio.sleep(0.05)


def is_final(error: RpcError) -> bool:
    """Tell whether an answer says what has become of the order."""
    return error.status is Status.FAILED_PRECONDITION


class World:
    """What is left in the end."""

    def __init__(self, urls: Mapping[str, str], provider: Provider) -> None:
        self._urls = urls
        self.provider = provider

    async def rows(self, service: str, table: str) -> list[Any]:
        query = sa.select(METADATA[service].tables[table])
        async with Database(self._urls[service]) as database:
            return await database.read(lambda connection: list(connection.execute(query)))

    async def until_all_has_ended(self) -> None:
        async with Database(self._urls["order"]) as database:
            log = SqlSagaLog(database, SAGAS)
            query = sa.select(sa.func.count()).select_from(METADATA["order"].tables["outbox"])
            while await log.count() or await database.read(lambda c: c.scalar(query)):
                parked = await log.list(state=SagaState.PARKED)
                assert not parked, [run.error for run in parked]
                await anyio.sleep(0.05)

    async def check(self, customers: Customers, events: Mapping[str, str]) -> None:
        """See that every order is there as it was answered, and that all balances."""
        stored = await self.rows("order", "orders")
        kept = [row for row in stored if row.idempotency_key is not None]
        orders = {row.idempotency_key: row for row in kept}
        assert len(orders) == len(kept)
        # What was undone for a passing reason has left its key to the next attempt.
        without = {OrderStatus(row.status) for row in stored if row.idempotency_key is None}
        assert without <= {OrderStatus.REJECTED}
        assert orders.keys() == customers.wanted.keys()
        confirmed: dict[str, Any] = {}
        for key, answer in customers.answers.items():
            row, good = orders[key], customers.wanted[key] == GOOD
            assert good == isinstance(answer, Order), (key, answer)
            assert row.status == (OrderStatus.CONFIRMED if good else OrderStatus.REJECTED), key
            if isinstance(answer, Order):
                assert (answer.id, answer.status) == (row.id, OrderStatus.CONFIRMED)
                confirmed[row.id] = answer
        # The journal says the same, also of attempts that no order was kept of.
        runs = await self.rows("order", SAGAS.runs.name)
        states = Counter(row.state for row in runs)
        assert states.keys() == {SagaState.COMPLETED, SagaState.UNDONE}
        assert {row.saga_id for row in runs if row.state == SagaState.COMPLETED} == set(confirmed)
        # Each is paid for once, and nothing else is.
        payments = await self.rows("payment", "payments")
        charged = [row for row in payments if row.state == PaymentState.CHARGED]
        assert sorted((row.order_id, row.amount_minor) for row in charged) == sorted(
            (order.id, order.total.amount_minor) for order in confirmed.values()
        )
        assert self.provider.balance == sum(row.amount_minor for row in charged)
        # Each has its items reserved once, and nothing else is missing.
        reservations = await self.rows("product", "reservations")
        held = {row.id for row in reservations if row.state == ReservationState.HELD}
        assert held == {f"{order_id}/inventory" for order_id in confirmed}
        sold: Counter[str] = Counter()
        for order in confirmed.values():
            for line in order.lines:
                sold[line.product_id] += line.quantity
        stock = {row.id: row.stock for row in await self.rows("product", "products")}
        assert {name: left + sold[name] for name, left in stock.items()} == {
            product.id: product.stock for product in PRODUCTS
        }
        # Each has been told of by one event, however often that came.
        assert sorted(events.values()) == sorted(confirmed)


async def main(urls: Mapping[str, str], redis: str, folder: Path, seed: int) -> None:
    events: dict[str, str] = {}
    deliveries = 0
    news = anyio.Event()

    async def hear(event: Event[Any]) -> None:
        nonlocal deliveries, news
        deliveries += 1
        news.set()
        assert events.setdefault(event.id, event.key) == event.key

    metrics, provider = Metrics(), Provider()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        bus = await enter(RedisEventBus(redis))
        bus.subscribe(ORDER_CREATED, hear, name="customers")
        services = [
            await enter(open_user(urls["user"], MemoryEventBus(), metrics)),
            await enter(open_product(urls["product"], metrics)),
            await enter(open_payment(urls["payment"], metrics, provider=provider)),
        ]
        server = await enter(Server(services, listen="127.0.0.1:0"))
        target = f"static:///{server.addresses[0]}"
        settings = ProcessSettings(
            name="order",
            database=urls["order"],
            peers={name: target for name in SERVICES if name != "order"},
            events=redis,
            propagation=0.0,
            lease=LEASE,
        )
        replicas = Replicas(settings, folder, seed)
        customers = Customers()
        world = World(urls, provider)
        began = anyio.current_time()
        async with (
            anyio.create_task_group() as service,
            Channel(f"memory:///{SERVICES['order']}", registry=replicas.registry) as channel,
        ):
            service.start_soon(replicas.run)
            async with anyio.create_task_group() as tasks:
                for _ in range(CLIENTS):
                    tasks.start_soon(customers.order, OrderServiceStub(channel), replicas)
            killed = anyio.current_time()
            with anyio.fail_after(30):
                await world.until_all_has_ended()
                confirmed = sum(isinstance(each, Order) for each in customers.answers.values())
                while len(events) < confirmed:
                    news = anyio.Event()
                    await news.wait()
                await replicas.stop()
        seconds = anyio.current_time() - began
    _logger.info(
        "seed %d: %d kills in %.1f s, %.1f s in all; a process opened in %.2f s and lived for %.2f s;"
        " %d orders asked for %d times; %d events delivered %d times; killed %s",
        *(seed, replicas.kills.total(), killed - began, seconds),
        *(replicas.opening / KILLS, replicas.living / KILLS),
        *(len(customers.wanted), len(customers.wanted) + customers.repeats),
        *(len(events), deliveries, dict(replicas.kills)),
    )
    assert replicas.codes == [0] * REPLICAS
    await world.check(customers, events)
    assert replicas.kills.total() == KILLS
    missed = set(MOMENTS) - replicas.kills.keys()
    assert not missed, "it never came to some moments"


@pytest.fixture(params=["sqlite", "mariadb"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A database for each service."""
    if request.param == "sqlite":
        return {name: f"sqlite:///{tmp_path / name}.db" for name in SERVICES}
    server = request.getfixturevalue("mariadb_server")
    return {name: server.fresh_database(f"order_kills_{name}") for name in SERVICES}


@pytest.mark.timeout(240)
def test_no_order_is_lost_or_doubled(
    urls: Mapping[str, str], redis_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """0 lost, 0 doubled: orders, stock, payments and events balance, over 100 kills on each database."""
    seed = random.SystemRandom().randrange(2**32)
    backend = "asyncio" if urls["order"].startswith("sqlite") else "trio"
    anyio.run(main, urls, redis_url, tmp_path, seed, backend=backend)
