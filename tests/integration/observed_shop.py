"""The shop with a page of metrics for each of its services, and customers who do all that can be counted."""

from __future__ import annotations

import io
import itertools
import ssl
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import msgspec

from bascule.app import App, Life, Resource, owned_tasks
from bascule.config import Config, MemorySource
from bascule.errors import RpcError
from bascule.events import Redelivery, RedisEventBus
from bascule.gateway import DevelopmentKey, LimitConfig, LineLog
from bascule.net import ServerTLS, development_certificate
from bascule.observe import Metrics
from bascule.resilience import BreakerSettings, CountWindow, GcraLimiter
from bascule.rpc import Channel
from bascule_shop._generated.user import GetUserRequest
from bascule_shop._generated.user.services import UserServiceStub
from bascule_shop._seed import SOLD_OUT
from bascule_shop.app import SERVICES, Outage
from bascule_shop.gateway import shop_gateway
from bascule_shop.order import ORDER_CREATED
from bascule_shop.process import ProcessSettings, shop_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bascule.events import Event

#: Seconds between two rounds of the customers.
PAUSE = 0.5

PLANK = "prd_001"


class Settings(msgspec.Struct, frozen=True):
    letters: str = "plain"


@dataclass
class ObservedShop:
    """What there is to scrape, and what can be broken.

    :ivar scrape: URLs of metrics by job
    :ivar authority: file with the certificate to trust
    :ivar outages: by short name of the service
    """

    scrape: dict[str, str]
    authority: Path
    outages: dict[str, Outage]


@asynccontextmanager
async def observed_shop(folder: Path, redis: str, consul: str) -> AsyncIterator[ObservedShop]:
    """Run the shop, a program that writes letters about orders, and customers.

    A breaker has opened before they come.
    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        certificate, key_file = development_certificate(folder)
        key = DevelopmentKey(folder)
        tasks = await enter(owned_tasks())
        stack.callback(tasks.cancel_scope.cancel)
        outages = {name: Outage() for name in SERVICES}
        lives: dict[str, Life] = {}
        for name in SERVICES:
            app = shop_app(
                ProcessSettings(
                    name=name,
                    database=f"sqlite:///{folder / name}.db",
                    consul=consul,
                    events=redis,
                    operations="127.0.0.1:0",
                    propagation=0.0,
                )
            )
            lives[name] = Life(replace(app, interceptors=[outages[name], *app.interceptors]))
        lives["mail"] = Life(mail(redis))
        for name, life in lives.items():
            await tasks.start(life.live, name=name)
            stack.push_async_callback(life.wait_stopped)
            stack.callback(life.hurry)
        metrics = Metrics()
        gateway = await enter(
            shop_gateway(
                key.auth,
                listen="127.0.0.1:0",
                tls=ServerTLS(certificate, key_file),
                targets={full: f"consul://{consul}/{full}" for full in SERVICES.values()},
                subject_limit=LimitConfig(requests=40, per=60.0),
                address_limit=LimitConfig(requests=100_000, per=60.0),
                redis=redis,
                limit_timeout=5.0,
                breaker=BreakerSettings(
                    timeout=2.0, window=CountWindow(calls=10, minimum_calls=5, slow_call=10.0)
                ),
                access_log=LineLog(io.BytesIO()),
                metrics=metrics,
                grace=1.0,
            )
        )
        url = f"https://{gateway.addresses[0]}"
        scrape = {name: f"http://{life.operations}/metrics" for name, life in lives.items()}
        trust = ssl.create_default_context(cafile=certificate)
        client = await enter(
            httpx.AsyncClient(http2=True, verify=trust, base_url=url, timeout=30.0)
        )
        customers = Customers(client, key)
        outages["user"].active = True
        await customers.look_for(6)
        outages["user"].active = False
        await get_lost(lives["product"].addresses[0])
        walking = await enter(owned_tasks())
        stack.callback(walking.cancel_scope.cancel)
        walking.start_soon(customers.run)
        yield ObservedShop({"gateway": f"{url}/metrics", **scrape}, certificate, outages)


def mail(redis: str) -> App:
    """Make a program that writes a letter about each order, and cannot about a quarter of them."""
    metrics = Metrics()

    async def write(event: Event[Any]) -> None:
        letters.require("post office")
        if event.id.endswith(tuple("0123")):
            raise ValueError("there is no stamp left")

    letters = GcraLimiter(1000, 1.0, name="letters")
    metrics.add_limiter(letters)

    @asynccontextmanager
    async def listening() -> AsyncIterator[RedisEventBus]:
        redelivery = Redelivery(attempts=2, first=0.05)
        async with RedisEventBus(redis, redelivery=redelivery) as bus:
            bus.subscribe(ORDER_CREATED, write, name="mail")
            metrics.add_events(bus.stats)
            yield bus

    return App(
        "mail",
        services=[],
        listen="127.0.0.1:0",
        config=Config(Settings, [MemorySource({"letters": "fine"}, name="defaults")]),
        resources=[Resource("bus", listening)],
        operations="127.0.0.1:0",
        propagation=0.0,
        metrics=metrics,
    )


async def get_lost(address: str) -> None:
    """Ask a service for what another one does."""
    async with Channel(f"static:///{address}") as channel:
        with suppress(RpcError):
            await UserServiceStub(channel).get_user(GetUserRequest(id="usr_ada"))


class Customers:
    """They buy, change their mind, have bad cards and bad tokens, and some ask too often."""

    def __init__(self, client: httpx.AsyncClient, key: DevelopmentKey) -> None:
        self._client = client
        self._key = key
        self._number = itertools.count()

    async def run(self) -> None:
        """Come again and again, whatever they are answered."""
        while True:
            with suppress(httpx.HTTPError):
                await self._round(next(self._number))
            await anyio.sleep(PAUSE)

    async def look_for(self, users: int) -> None:
        """Ask for users, whatever the answer."""
        token = self._key.mint_token("usr_bram")
        for number in range(users):
            await self._ask("GET", f"/api/v1/users/usr_{number}", token)

    async def _round(self, number: int) -> None:
        customer = self._key.mint_token("usr_ada")
        # One limit for each: who is served must not be turned away for those who ask too often.
        buyer = self._key.mint_token("usr_bram" if number % 2 else "usr_ada")
        await self._ask("GET", f"/api/v1/products/{PLANK}")
        await self._ask("GET", "/api/v1/users/usr_ada", customer)
        await self._ask("GET", "/api/v1/users/usr_nobody", customer)
        await self._ask("GET", "/api/v1/orders", self._key.mint_token("usr_ada", lifetime=-60.0))
        eager = self._key.mint_token("usr_eager")
        for _ in range(5):
            await self._ask("GET", "/api/v1/products?page_size=1", eager)
        for product, card in ((PLANK, "tok_visa"), (PLANK, "tok_declined"), (SOLD_OUT, "tok_visa")):
            order = {
                "items": [{"productId": product, "quantity": 1}],
                "paymentToken": card,
            }
            for _ in range(2):
                key = f"{product}-{card}-{number}"
                await self._ask("POST", "/api/v1/orders", buyer, order, key)

    async def _ask(
        self, method: str, path: str, token: str = "", document: Any = None, key: str = ""
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        if key:
            headers["idempotency-key"] = key
        return await self._client.request(method, path, json=document, headers=headers)
