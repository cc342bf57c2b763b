"""One order is one trace, from the gateway through four processes, as a real Jaeger has it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from tests.integration.shop_processes import ServiceProcess

from bascule.events import Event, RedisEventBus
from bascule.gateway import DevelopmentKey, LineLog
from bascule.observe import open_tracing
from bascule.testing.servers import JaegerServer
from bascule_shop.gateway import SERVICES, shop_gateway
from bascule_shop.order import ORDER_CREATED

pytestmark = pytest.mark.anyio

ITEMS = [{"productId": "prd_001", "quantity": 1}]


class Trace:
    """What Jaeger has of a trace."""

    def __init__(self, document: dict[str, Any]) -> None:
        names = {key: each["serviceName"] for key, each in document["processes"].items()}
        self.spans = {each["spanID"]: each for each in document["spans"]}
        self.tags = {
            key: {tag["key"]: tag["value"] for tag in each["tags"]}
            for key, each in self.spans.items()
        }
        self._services = {key: names[each["processID"]] for key, each in self.spans.items()}

    def title(self, span_id: str) -> str:
        """Service and name of a span."""
        return f"{self._services[span_id]}: {self.spans[span_id]['operationName']}"

    def path(self, span_id: str) -> list[str]:
        """What leads to a span, itself first."""
        parents = [
            each["spanID"]
            for each in self.spans[span_id]["references"]
            if each["refType"] == "CHILD_OF"
        ]
        return [self.title(span_id), *(self.path(parents[0]) if parents else [])]

    def paths(self) -> list[list[str]]:
        return [self.path(span_id) for span_id in self.spans]

    def failed(self) -> list[str]:
        """Those with the status of an error."""
        return sorted(
            self.title(key) for key, tags in self.tags.items() if tags.get("error") is True
        )

    def raised(self) -> list[str]:
        """Those that have recorded an exception."""
        return sorted(
            self.title(key)
            for key, each in self.spans.items()
            for log in each["logs"]
            if {"key": "event", "type": "string", "value": "exception"} in log["fields"]
        )


@pytest.fixture
def traced(jaeger_server: JaegerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is started sends its spans to Jaeger, as an operator would have it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger_server.endpoint)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")


@asynccontextmanager
async def shop(folder: Path, redis: str, loop: str) -> AsyncIterator[httpx.AsyncClient]:
    """Four services as processes, and the gateway in this one."""
    peers: dict[str, str] = {}
    async with AsyncExitStack() as stack:

        def start(name: str, *arguments: str) -> ServiceProcess:
            options = {"data": str(folder), "events": redis}
            return stack.enter_context(ServiceProcess(name, folder, loop, *arguments, **options))

        for process in [start(name) for name in ("user", "product", "payment")]:
            (peers[process.name],) = (await process.until("serving"))["addresses"]
        order = start("order", *(f"--peer={name}={target}" for name, target in peers.items()))
        (peers["order"],) = (await order.until("serving"))["addresses"]
        await order.until("ready")
        key = DevelopmentKey(folder)
        gateway = await stack.enter_async_context(
            shop_gateway(
                key.auth,
                listen="127.0.0.1:0",
                targets={name: peers[name.partition(".")[0]] for name in SERVICES},
                access_log=LineLog(io.BytesIO()),
            )
        )
        yield await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://{gateway.addresses[0]}",
                headers={"authorization": f"Bearer {key.mint_token('usr_ada')}"},
                timeout=30.0,
                trust_env=False,
            )
        )


async def trace_of(jaeger: JaegerServer, answer: httpx.Response, *titles: str) -> Trace:
    """The trace that an answer is the end of, once Jaeger has spans of these titles."""
    trace = None
    with anyio.move_on_after(60):
        while True:
            # The gateway has begun it: its id is the request's.
            request_id = answer.headers["x-request-id"]
            document = await anyio.to_thread.run_sync(jaeger.trace, request_id)
            if document is not None:
                trace = Trace(document)
                if set(titles) <= {trace.title(key) for key in trace.spans}:
                    return trace
            await anyio.sleep(0.05)
    raise AssertionError(f"{titles} are not all in {trace and trace.paths()}")


#: From any span of the order service to the beginning.
ORDER = [
    "order: order.OrderService/CreateOrder",
    "gateway: order.OrderService/CreateOrder",
    "gateway: POST /api/v1/orders",
]
SAGA = ["order: saga create-order", *ORDER]


def called(service: str, method: str) -> list[str]:
    """The server's and the client's span of a call that the order service makes."""
    return [f"{service}: {method}", f"order: {method}"]


async def test_an_order_is_one_trace_and_its_failures_are_where_they_belong(
    traced: None,
    jaeger_server: JaegerServer,
    redis_url: str,
    tmp_path: Path,
    anyio_backend_name: str,
) -> None:
    """All in one: to start four processes takes longer than the rest."""

    async def notify(event: Event[Any]) -> None: ...

    async with (
        shop(tmp_path, redis_url, anyio_backend_name) as client,
        open_tracing("mailer"),
        RedisEventBus(redis_url) as bus,
    ):
        bus.subscribe(ORDER_CREATED, notify, name="mailer")
        answers = []
        for token in ("tok_visa", "tok_declined", "tok_down"):
            document = {"items": ITEMS, "paymentToken": token}
            answers.append(await client.post("/api/v1/orders", json=document))
        assert [answer.status_code for answer in answers] == [201, 400, 503]
        begun = ("gateway: POST /api/v1/orders", ORDER[0], *called("user", USER))
        ends = [("mailer: process order.created", "payment: write payment.db")]
        ends += [("order: undo inventory", "product: product.ProductService/ReleaseInventory")] * 2
        done, declined, down = [
            await trace_of(jaeger_server, answer, *begun, *end)
            for answer, end in zip(answers, ends, strict=True)
        ]
    paths = done.paths()
    for path in (
        ["user: read user.db", *called("user", USER), *ORDER],
        ["product: read product.db", *called("product", CHECK), *ORDER],
        ["product: write product.db", *called("product", RESERVE), "order: step inventory", *SAGA],
        ["payment: write payment.db", *called("payment", CHARGE), "order: step payment", *SAGA],
        ["order: write order.db", "order: step order", *SAGA],
        # What the saga writes down of itself.
        ["order: write order.db", *SAGA],
        [
            *("mailer: process order.created", "order: create order.created"),
            *("order: write order.db", "order: step confirm", *SAGA),
        ],
    ):
        assert path in paths, path
    assert [path for path in paths if len(path) == 1] == [["gateway: POST /api/v1/orders"]]
    assert done.failed() == done.raised() == []

    # A card that is declined is an answer: whoever asked has failed, whoever answered has not.
    assert declined.failed() == sorted(
        [
            *("gateway: order.OrderService/CreateOrder", "order: saga create-order"),
            *("order: step payment", f"order: {CHARGE}"),
        ]
    )
    assert declined.raised() == []

    # A provider that is away is a failure of all that needed it, and was raised in one place.
    assert set(down.failed()) == {
        *("gateway: POST /api/v1/orders", *ORDER, "order: saga create-order"),
        *("order: step payment", *called("payment", CHARGE)),
    }
    assert set(down.raised()) == {f"payment: {CHARGE}"}


USER, CHARGE = "user.UserService/GetUser", "payment.PaymentService/Charge"
CHECK, RESERVE = (f"product.ProductService/{name}Inventory" for name in ("Check", "Reserve"))
