"""The stops of the tour: what a client asks the shop, and what it must be answered.

The client is httpx, which shares no code with the gateway. Nothing is mocked: every answer comes over
HTTP/2 and TLS from the gateway, which has it from the services, which have it from their databases.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from bascule.events import Event
    from bascule.gateway import DevelopmentKey
    from bascule_shop.app import Shop

__all__ = ["STOPS", "Tour", "Visit"]

Stop: TypeAlias = "tuple[str, Callable[[Tour], Awaitable[str]]]"
Document: TypeAlias = dict[str, Any]

_GOOD_CARD = "tok_visa"
_BAD_CARD = "tok_declined"
_PLANK = "prd_001"
_HURRY = 50
_LAST = 10


class MismatchError(Exception):
    """An answer differs from the expected one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What one stop has shown.

    :ivar found: what was answered, for people to read
    :ivar problem: how it differs from what was expected; None if it does not
    :ivar requests: that the client sent
    """

    title: str
    found: str
    problem: str | None
    requests: int
    seconds: float


class Tour:
    """A client with what it remembers from one stop to the next.

    :param client: for the gateway's address
    :param shop: to cause an outage, and to hear the events
    :param key: signs tokens
    :param breaker_timeout: seconds that the gateway's breakers stay open
    """

    def __init__(
        self, client: httpx.AsyncClient, shop: Shop, key: DevelopmentKey, *, breaker_timeout: float
    ) -> None:
        self.shop = shop
        self.key = key
        self.breaker_timeout = breaker_timeout
        self.requests = 0
        self.orders = 0
        self.user_id = ""
        self.email = f"grace.{secrets.token_hex(4)}@example.com"
        self.token: str | None = None
        self.order: Document = {}
        self.order_request = ""
        self.events: dict[str, int] = {}
        self._client = client
        self._heard = anyio.Event()

    async def visit(self, stop: Stop) -> Visit:
        """Make one stop; a wrong answer ends the stop, not the tour."""
        title, take = stop
        before, begun = self.requests, time.perf_counter()
        found, problem = "", None
        try:
            found = await take(self)
        except MismatchError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not what was expected
            problem = repr(error)
        return Visit(
            title=title,
            found=found,
            problem=problem,
            requests=self.requests - before,
            seconds=time.perf_counter() - begun,
        )

    async def ask(
        self,
        method: str,
        path: str,
        document: Document | None = None,
        *,
        token: str | None = None,
        **headers: str,
    ) -> httpx.Response:
        """Send a request, with the current user's token unless another is given."""
        token = self.token if token is None else token
        if token:
            headers["authorization"] = f"Bearer {token}"
        self.requests += 1
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self._client.request(method, path, json=document, headers=named)
        if answer.http_version != "HTTP/2":
            raise MismatchError(f"answered by {answer.http_version}, not HTTP/2")
        return answer

    async def expect(
        self,
        status: int,
        method: str,
        path: str,
        document: Document | None = None,
        *,
        token: str | None = None,
        **headers: str,
    ) -> httpx.Response:
        """Send a request whose answer must have an HTTP status.

        :raises MismatchError: if it has another
        """
        answer = await self.ask(method, path, document, token=token, **headers)
        if answer.status_code != status:
            raise MismatchError(
                f"{method} {path}: expected {status}, got {answer.status_code} {answer.text[:300]}"
            )
        return answer

    async def product(self, product_id: str) -> Document:
        """Give a product; JSON leaves out a stock of 0."""
        answer = await self.expect(200, "GET", f"/api/v1/products/{product_id}")
        return {"stock": 0, **answer.json()}

    async def place(self, items: dict[str, int], card: str = _GOOD_CARD) -> httpx.Response:
        """Order as the current user."""
        answer = await self.ask("POST", "/api/v1/orders", order_of(items, card))
        self.orders += answer.status_code == 201
        return answer

    async def hear(self, event: Event[Any]) -> None:
        """Count an event."""
        self.events[event.topic.name] = self.events.get(event.topic.name, 0) + 1
        self._heard.set()

    async def events_up_to(self, topic: str, count: int, *, within: float) -> int:
        """Wait until so many events of a topic were heard, or the time is over; give their number."""
        with anyio.move_on_after(within):
            while self.events.get(topic, 0) < count:
                self._heard = anyio.Event()
                await self._heard.wait()
        return self.events.get(topic, 0)


def require(condition: object, difference: str) -> None:
    """Go on only if a condition holds.

    :raises MismatchError: if it does not
    """
    if not condition:
        raise MismatchError(difference)


def order_of(items: dict[str, int], card: str = _GOOD_CARD) -> Document:
    """Give the body of an order."""
    return {
        "items": [{"productId": name, "quantity": count} for name, count in items.items()],
        "paymentToken": card,
    }


def detail(answer: httpx.Response, kind: str) -> Document:
    """Give the first detail of a kind from a ``google.rpc.Status``.

    :raises MismatchError: if there is none
    """
    for each in answer.json().get("details", ()):
        if each.get("@type") == f"type.googleapis.com/google.rpc.{kind}":
            return dict(each)
    raise MismatchError(f"the answer has no {kind}: {answer.text[:300]}")


def euros(money: Document) -> str:
    """Write an amount for people; JSON has 64-bit numbers as text."""
    minor = int(money["amountMinor"])
    return f"{minor // 100}.{minor % 100:02} {money['currency']}"


async def knock(tour: Tour) -> str:
    """The gateway lives and can serve."""
    from bascule_shop.order import ORDER_CREATED
    from bascule_shop.user import USER_CREATED

    for topic in (USER_CREATED, ORDER_CREATED):
        tour.shop.bus.subscribe(topic, tour.hear, name="demo")
    await tour.expect(200, "GET", "/healthz")
    answer = await tour.expect(200, "GET", "/readyz")
    return f"alive and ready, {answer.http_version} over TLS"


async def sign_up(tour: Tour) -> str:
    """A new user: 201 with its place."""
    person = {"email": tour.email, "displayName": "Grace Hopper", "password": "a compiler, please"}
    answer = await tour.expect(201, "POST", "/api/v1/users", person)
    tour.user_id = answer.json()["id"]
    place = answer.headers.get("location")
    require(place == f"/api/v1/users/{tour.user_id}", f"the location is {place}")
    tour.token = tour.key.mint_token(tour.user_id)
    again = await tour.expect(200, "GET", str(place))
    require(
        again.json()["email"] == tour.email, f"the user has the address {again.json()['email']}"
    )
    require("assword" not in again.text, "the answer holds something of the password")
    return f"201, {tour.user_id}, password kept as argon2id hash"


async def sign_up_again(tour: Tour) -> str:
    """The same address: 409."""
    person = {"email": tour.email.upper(), "displayName": "Copy", "password": "something else"}
    answer = await tour.expect(409, "POST", "/api/v1/users", person)
    return f"409, {detail(answer, 'ErrorInfo')['reason']}"


async def fill_in_badly(tour: Tour) -> str:
    """Bad fields: 400 that names them all."""
    answer = await tour.expect(400, "POST", "/api/v1/users", {"email": "nobody"})
    fields = [each["field"] for each in detail(answer, "BadRequest")["fieldViolations"]]
    require(fields == ["email", "display_name", "password"], f"it names {fields}")
    unknown = await tour.expect(400, "POST", "/api/v1/users", {"emial": "a@example.com"})
    require("emial" in unknown.text, f"the unknown field is not named: {unknown.text[:300]}")
    return f"400, naming {', '.join(fields)}; 400, naming the unknown emial"


async def look_around(tour: Tour) -> str:
    """All products, page by page."""
    seen: list[str] = []
    token, pages = "", 0
    while True:
        path = f"/api/v1/products?page_size=25&page_token={token}"
        page = (await tour.expect(200, "GET", path)).json()
        seen += [each["id"] for each in page["products"]]
        pages += 1
        token = page.get("nextPageToken", "")
        if not token:
            break
    require(len(set(seen)) == len(seen) >= 50, f"{len(set(seen))} products on {pages} pages")
    return f"{len(seen)} products on {pages} pages"


async def buy(tour: Tour) -> str:
    """An order: 201, its price is the server's, its items are taken."""
    before = await tour.product(_PLANK)
    answer = await tour.place({_PLANK: 2})
    require(answer.status_code == 201, f"got {answer.status_code} {answer.text[:300]}")
    tour.order, tour.order_request = answer.json(), answer.headers["x-request-id"]
    place = answer.headers.get("location")
    require(place == f"/api/v1/orders/{tour.order['id']}", f"the location is {place}")
    require(tour.order["userId"] == tour.user_id, "the order is somebody else's")
    price = 2 * int(before["price"]["amountMinor"])
    total = tour.order["total"]
    require(int(total["amountMinor"]) == price, f"the total is {euros(total)}")
    left = (await tour.product(_PLANK))["stock"]
    require(left == before["stock"] - 2, f"the stock went from {before['stock']} to {left}")
    return f"201, {tour.order['id']}, {euros(total)}, stock {before['stock']} -> {left}"


async def buy_twice(tour: Tour) -> str:
    """One idempotency key: one order however often it is sent."""
    before = (await tour.product(_PLANK))["stock"]
    key = secrets.token_hex(8)
    ids = set()
    for _ in range(3):
        answer = await tour.expect(
            201, "POST", "/api/v1/orders", order_of({_PLANK: 1}), idempotency_key=key
        )
        ids.add(answer.json()["id"])
    tour.orders += 1
    left = (await tour.product(_PLANK))["stock"]
    require(len(ids) == 1, f"{len(ids)} orders were made")
    require(left == before - 1, f"the stock went from {before} to {left}")
    return f"sent 3 times, one order, stock {before} -> {left}"


async def find_it_sold_out(tour: Tour) -> str:
    """Out of stock: FAILED_PRECONDITION that names the product, and nothing is taken."""
    from bascule_shop.app import SOLD_OUT

    before = (await tour.product(_PLANK))["stock"]
    answer = await tour.place({_PLANK: 1, SOLD_OUT: 1})
    require(answer.status_code == 400, f"got {answer.status_code} {answer.text[:300]}")
    require(answer.json()["code"] == 9, f"the code is {answer.json()['code']}, not 9")
    violations = detail(answer, "PreconditionFailure")["violations"]
    named = [each["subject"] for each in violations]
    require(named == [SOLD_OUT], f"it names {named}")
    left = (await tour.product(_PLANK))["stock"]
    require(left == before, f"the stock went from {before} to {left}")
    return f"400 FAILED_PRECONDITION, naming {SOLD_OUT}; stock of the rest unchanged at {left}"


async def pay_with_a_bad_card(tour: Tour) -> str:
    """Payment refused: the order is undone, the stock is back."""
    before = (await tour.product(_PLANK))["stock"]
    answer = await tour.place({_PLANK: 3}, _BAD_CARD)
    require(answer.status_code == 400, f"got {answer.status_code} {answer.text[:300]}")
    reason = detail(answer, "ErrorInfo")["reason"]
    require(reason == "CARD_DECLINED", f"the reason is {reason}")
    left = (await tour.product(_PLANK))["stock"]
    require(left == before, f"the stock went from {before} to {left}")
    newest = (await tour.expect(200, "GET", "/api/v1/orders?page_size=1")).json()["orders"][0]
    require(newest["status"] == "ORDER_STATUS_REJECTED", f"the order is {newest['status']}")
    return f"400 {reason}, order rejected, stock back at {left}"


async def change_ones_mind(tour: Tour) -> str:
    """A cancelled order: refunded, its items back in stock."""
    before = (await tour.product(_PLANK))["stock"]
    path = f"/api/v1/orders/{tour.order['id']}:cancel"
    answer = await tour.expect(200, "POST", path, {})
    status = answer.json()["status"]
    require(status == "ORDER_STATUS_CANCELLED", f"the order is {status}")
    left = (await tour.product(_PLANK))["stock"]
    require(left == before + 2, f"the stock went from {before} to {left}")
    return f"200, cancelled, stock {before} -> {left}"


async def be_nobody(tour: Tour) -> str:
    """A token of a user who does not exist: 400 that says so."""
    stranger = tour.key.mint_token("usr_nobody")
    answer = await tour.expect(400, "POST", "/api/v1/orders", order_of({_PLANK: 1}), token=stranger)
    reason = detail(answer, "ErrorInfo")["reason"]
    require(answer.json()["code"] == 3, f"the code is {answer.json()['code']}, not 3")
    require(reason == "USER_NOT_FOUND", f"the reason is {reason}")
    return f"400 INVALID_ARGUMENT, {reason}"


async def forge_a_token(tour: Tour) -> str:
    """No token, a forged one, an expired one: 401."""
    head, payload, _ = (tour.token or "..").split(".")
    forged = {
        "missing": "",
        "forged": f"{head}.{payload}.{'A' * 86}",
        "expired": tour.key.mint_token(tour.user_id, lifetime=-3600.0),
    }
    for kind, token in forged.items():
        answer = await tour.expect(401, "GET", "/api/v1/orders", token=token)
        challenge = answer.headers.get("www-authenticate", "")
        require(challenge.startswith("Bearer"), f"{kind} token: the challenge is {challenge!r}")
    return f"401 for each: {', '.join(forged)}"


async def look_into_others_orders(tour: Tour) -> str:
    """Somebody else's order does not exist."""
    other = tour.key.mint_token("usr_bram")
    await tour.expect(404, "GET", f"/api/v1/orders/{tour.order['id']}", token=other)
    return "404 with another user's token"


async def hurry(tour: Tour) -> str:
    """Fifty at once for the last ten: exactly ten get one."""
    scarce = "prd_005"
    stock = (await tour.product(scarce))["stock"]
    require(stock > _LAST, f"only {stock} left of {scarce}: start with an empty folder")
    bought = [(await tour.place({scarce: stock - _LAST}))]
    answers: list[httpx.Response] = []

    async def race() -> None:
        answers.append(await tour.place({scarce: 1}))

    async with anyio.create_task_group() as tasks:
        for _ in range(_HURRY):
            tasks.start_soon(race)
    bought += [answer for answer in answers if answer.status_code == 201]
    refused = sum(answer.status_code == 400 for answer in answers)
    left = (await tour.product(scarce))["stock"]
    got = len(bought) - 1
    require((got, refused, left) == (_LAST, _HURRY - _LAST, 0), f"{got} got one, {left} left")
    for answer in bought:
        await tour.expect(200, "POST", f"/api/v1/orders/{answer.json()['id']}:cancel", {})
    back = (await tour.product(scarce))["stock"]
    require(back == stock, f"after cancelling, the stock is {back}, not {stock}")
    return f"{got} of {_HURRY} orders made, {refused} refused, stock 0; all cancelled, stock {back}"


async def meet_an_outage(tour: Tour) -> str:
    """A failing service: the breaker opens, and closes when the service is back."""
    outage = tour.shop.servers["product"].outage
    path = f"/api/v1/products/{_PLANK}"
    outage.active = True
    try:
        for _ in range(5):
            answer = await tour.expect(503, "GET", path)
            require("outage" in answer.text, f"not the service's own answer: {answer.text[:300]}")
        begun = time.perf_counter()
        answer = await tour.expect(503, "GET", path)
        rejected = time.perf_counter() - begun
        require(
            "takes no calls" in answer.text,
            f"the breaker let the call through: {answer.text[:300]}",
        )
        pause = answer.headers.get("retry-after")
        require(pause, "the answer has no Retry-After")
        require(await breaker_state(tour) == 1, "the metric does not say that it is open")
    finally:
        outage.active = False
    await anyio.sleep(max(float(pause), tour.breaker_timeout))
    for _ in range(3):
        await tour.expect(200, "GET", path)
    require(await breaker_state(tour) == 0, "the metric does not say that it is closed")
    return (
        f"open after 5 failures, then refused in {rejected * 1e3:.1f} ms (Retry-After {pause} s);"
        " closed after 3 successes"
    )


async def breaker_state(tour: Tour) -> int:
    """Read the product service's breaker from the metrics: 0 closed, 1 open, 2 half-open."""
    text = (await tour.expect(200, "GET", "/metrics")).text
    line = r'^circuit_breaker_state\{name="product\.ProductService@[^"]*"\} ([0-9.]+)$'
    found = re.search(line, text, re.MULTILINE)
    if found is None:
        raise MismatchError("the metrics have no circuit_breaker_state of the product service")
    return int(float(found[1]))


async def ask_too_much(tour: Tour) -> str:
    """More than 1000 requests in 60 s: 429 that says when to come back."""
    limit, per, at_once = 1_000, 60.0, 20
    token = tour.key.mint_token(f"eager-{secrets.token_hex(4)}")
    admitted = 0
    refused: list[httpx.Response] = []

    async def ask_on() -> None:
        nonlocal admitted
        while not refused:
            answer = await tour.ask("GET", f"/api/v1/products/{_PLANK}", token=token)
            if answer.status_code == 429:
                refused.append(answer)
            else:
                require(answer.status_code == 200, f"got {answer.status_code} {answer.text[:300]}")
                admitted += 1
                require(admitted < 2 * limit, f"{admitted} requests were admitted")

    begun = time.perf_counter()
    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(at_once):
                tasks.start_soon(ask_on)
    except* MismatchError as group:
        raise group.exceptions[0] from None
    seconds = time.perf_counter() - begun
    # The limit gives back a place every 60 ms while it is being used up.
    most = limit + math.ceil(seconds * limit / per) + 1
    require(
        limit <= admitted <= most, f"{admitted} admitted in {seconds:.2f} s, not {limit}-{most}"
    )
    headers = refused[0].headers
    for name in ("retry-after", "ratelimit", "ratelimit-policy"):
        require(name in headers, f"the answer has no {name}")
    return (
        f"429 after {admitted} requests in {seconds:.2f} s, Retry-After {headers['retry-after']} s,"
        f" RateLimit-Policy {headers['ratelimit-policy']}"
    )


async def hear_the_events(tour: Tour) -> str:
    """What happened was told, once each."""
    users = await tour.events_up_to("user.created", 1, within=5.0)
    orders = await tour.events_up_to("order.created", tour.orders, within=5.0)
    require(users == 1, f"{users} user.created")
    require(orders == tour.orders, f"{orders} order.created for {tour.orders} orders")
    return f"user.created {users}, order.created {orders}"


async def read_the_metrics(tour: Tour) -> str:
    """The metrics have counted it all."""
    text = (await tour.expect(200, "GET", "/metrics")).text
    for name in ("grpc_requests_total", "grpc_request_duration_seconds", "circuit_breaker_state"):
        require(f"\n{name}" in text, f"{name} is missing")
    created = 'grpc_requests_total{method="CreateOrder",service="order.OrderService",status="OK"}'
    line = next((each for each in text.splitlines() if each.startswith(created)), "")
    require(line, "no CreateOrder was counted")
    return f"{text.count(chr(10))} lines, {int(float(line.split()[-1]))} CreateOrder with OK"


STOPS: tuple[Stop, ...] = (
    ("Knock at the gateway", knock),
    ("Create a user", sign_up),
    ("Create it again", sign_up_again),
    ("Fill in a form badly", fill_in_badly),
    ("List the products", look_around),
    ("Order", buy),
    ("Order with one idempotency key", buy_twice),
    ("Order what is out of stock", find_it_sold_out),
    ("Have the payment refused", pay_with_a_bad_card),
    ("Cancel an order", change_ones_mind),
    ("Order for a missing user", be_nobody),
    ("Come with a bad token", forge_a_token),
    ("Ask for another user's order", look_into_others_orders),
    (f"{_HURRY} orders at once for the last {_LAST}", hurry),
    ("Let a service fail and recover", meet_an_outage),
    ("Ask too often", ask_too_much),
    ("Listen to the events", hear_the_events),
    ("Read the metrics", read_the_metrics),
)
