"""One effect and one answer for a POST that comes again, with answers in the process and in Redis."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.gateway_shop import Shop as ShopGateway
from tests.integration.gateway_shop import running

from bascule.errors import ConfigurationError, RpcError, Status
from bascule.gateway import (
    Exchange,
    Gateway,
    GatewayConfig,
    HandlerEndpoint,
    IdempotencyConfig,
    LineLog,
    RouteConfig,
)
from bascule.gateway._answers import Answer, Held, MemoryAnswers, RedisAnswers
from bascule.net import HttpRequest, HttpResponse
from bascule.resilience import RedisClient

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from bascule.testing.servers import RedisServer

pytestmark = pytest.mark.anyio


class Service:
    """A gateway with a handler that counts what it does and fails as it is told."""

    def __init__(self, redis: str | None, log: io.BytesIO | None = None, **settings: Any) -> None:
        self.effects: list[bytes] = []
        self.gate: anyio.Event | None = None
        self.entered = anyio.Event()
        self.fail: Callable[[], Exception | None] = lambda: None
        config = GatewayConfig(
            {},
            "127.0.0.1:0",
            redis=redis,
            subject_limit=None,
            idempotency=IdempotencyConfig(**settings),
        )
        self.gateway = Gateway(config, b"", access_log=LineLog(log) if log else None)
        public = RouteConfig(public=True, timeout=5.0)
        for path in ("/pay/{account}", "/other"):
            self.gateway.router.post(path, HandlerEndpoint(self._handle, public))
        self.gateway.router.get("/pay/{account}", HandlerEndpoint(self._handle, public))

    async def _handle(self, exchange: Exchange) -> HttpResponse:
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        error = self.fail()
        if error is not None:
            raise error
        self.effects.append(exchange.request.body)
        headers = [("content-type", "application/json"), ("location", "/x"), ("set-cookie", "a=b")]
        return HttpResponse(201, headers, json.dumps({"number": len(self.effects)}).encode())

    async def post(
        self,
        key: str | None,
        body: bytes = b"{}",
        *,
        path: str = "/pay/1",
        peer: str = "192.0.2.1:1",
        method: str = "POST",
    ) -> tuple[int, dict[str, str], Any]:
        headers = [("content-type", "application/json")]
        if key is not None:
            headers.append(("idempotency-key", key))
        response = await self.gateway.handle(
            HttpRequest(method, path, headers, body, peer, "https", "2")
        )
        return response.status, dict(response.headers), json.loads(response.body)


@pytest.fixture(params=["memory", "redis"])
async def service(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Service]:
    redis = request.getfixturevalue("redis_url") if request.param == "redis" else None
    service = Service(redis, timeout=5.0)
    async with service.gateway:
        yield service


async def test_the_same_request_gets_the_same_answer_and_has_one_effect(service: Service) -> None:
    first = await service.post("k")
    again = await service.post("k")
    quoted = await service.post('"k"')
    assert first[0] == again[0] == quoted[0] == 201
    assert first[2] == again[2] == quoted[2] == {"number": 1}
    assert again[1]["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first[1]
    assert (again[1]["content-type"], again[1]["location"]) == ("application/json", "/x")
    assert "set-cookie" not in again[1], "a cookie is for the first answer only"
    assert first[1]["x-request-id"] != again[1]["x-request-id"]
    assert len(service.effects) == 1


async def test_fifty_at_once_have_one_effect_and_get_one_answer(service: Service) -> None:
    answers: list[Any] = []
    busy = 0

    async def persist() -> None:
        nonlocal busy
        while True:
            status, headers, body = await service.post("k")
            if status != 409:
                answers.append((status, body))
                return
            assert headers["retry-after"] == "1"
            busy += 1
            await anyio.sleep(0.005)

    service.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(persist)
        await service.entered.wait()
        assert (await service.post("k"))[0] == 409
        service.gate.set()
    assert answers == [(201, {"number": 1})] * 50
    assert len(service.effects) == 1
    text = service.gateway.metrics.render()[0].decode()
    assert 'idempotent_requests_total{outcome="executed"} 1.0' in text
    assert 'idempotent_requests_total{outcome="replayed"} 49.0' in text
    assert f'idempotent_requests_total{{outcome="in_flight"}} {busy + 1}.0' in text


@pytest.mark.parametrize("other", [{"body": b'{"a": 1}'}, {"path": "/pay/2"}, {"path": "/pay/1?x"}])
async def test_a_key_of_another_request_is_refused(service: Service, other: dict[str, Any]) -> None:
    await service.post("k")
    status, _, body = await service.post("k", **other)
    assert (status, body["code"]) == (422, 3)
    assert len(service.effects) == 1


async def test_keys_are_of_one_caller_and_one_route(service: Service) -> None:
    answers = [
        await service.post("k"),
        await service.post("k", peer="192.0.2.2:1"),
        await service.post("k", path="/other"),
        await service.post("l"),
        await service.post(None),
        await service.post(None),
        await service.post("k", method="GET"),
        await service.post("k", method="GET"),
    ]
    assert [answer[2]["number"] for answer in answers] == list(range(1, 9))
    assert (await service.post("k", peer="192.0.2.1:999"))[2] == {"number": 1}, "not of one port"


@pytest.mark.parametrize("key", ["", '""', "a b", "x" * 256, "k\u00e9y", "a\tb", '"a', '"a"b"'])
async def test_a_key_that_is_none_is_refused(service: Service, key: str) -> None:
    status, _, body = await service.post(key)
    assert status == 400
    assert body["details"][0]["fieldViolations"][0]["field"] == "idempotency-key"
    assert not service.effects


@pytest.mark.parametrize("status", ["UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "INTERNAL"])
async def test_an_answer_that_tells_to_try_again_is_not_kept(service: Service, status: str) -> None:
    service.fail = lambda: RpcError(Status[status], "not now")
    assert (await service.post("k"))[0] >= 409
    service.fail = lambda: None
    assert (await service.post("k"))[0] == 201
    service.fail = lambda: ValueError("ours")
    assert (await service.post("l"))[0] == 500
    service.fail = lambda: None
    assert (await service.post("l", b"other"))[0] == 201, "and the key is free"


@pytest.mark.parametrize("status", ["FAILED_PRECONDITION", "NOT_FOUND", "ALREADY_EXISTS"])
async def test_a_refusal_that_stands_is_kept(service: Service, status: str) -> None:
    service.fail = lambda: RpcError(Status[status], "no")
    first = await service.post("k")
    service.fail = lambda: None
    again = await service.post("k")
    assert (first[0], first[2]) == (again[0], again[2])
    assert again[2]["code"] == Status[status].value
    assert not service.effects


async def test_what_a_client_left_behind_is_finished_for_its_next_attempt(service: Service) -> None:
    service.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.post, "k")
        await service.entered.wait()
        tasks.cancel_scope.cancel()
        service.gate.set()
    assert (await service.post("k"))[2] == {"number": 1}
    assert len(service.effects) == 1


async def test_an_answer_too_long_to_keep_is_not_given_again_and_nothing_is_done_twice(
    redis_url: str,
) -> None:
    for url in (None, redis_url):
        service = Service(url, max_body=5, timeout=5.0)
        async with service.gateway:
            assert (await service.post("k"))[0] == 201
            status, _, body = await service.post("k")
            assert status == 409
            assert "too long" in body["message"]
            assert len(service.effects) == 1


async def test_gateways_share_answers_through_redis(redis_url: str) -> None:
    one, two = Service(redis_url, timeout=5.0), Service(redis_url, timeout=5.0)
    async with one.gateway, two.gateway:
        first = await one.post("k")
        assert (await two.post("k"))[2] == first[2]
        assert not two.effects


async def test_while_redis_is_away_requests_with_a_key_are_refused_or_served_as_declared(
    own_redis: RedisServer,
) -> None:
    closed, opened = Service(own_redis.url), Service(own_redis.url, away="open")
    async with closed.gateway, opened.gateway:
        own_redis.stop()
        status, headers, _ = await closed.post("k")
        assert (status, headers["retry-after"]) == (503, "1")
        assert not closed.effects
        assert (await closed.post(None))[0] == 201, "without a key nobody asks Redis"
        assert (await opened.post("k"))[0] == (await opened.post("k"))[0] == 201
        assert len(opened.effects) == 2
        text = opened.gateway.metrics.render()[0].decode()
        assert 'idempotent_requests_total{outcome="unprotected"} 2.0' in text


async def test_an_answer_is_given_though_it_could_not_be_kept(own_redis: RedisServer) -> None:
    service = Service(own_redis.url, timeout=2.0)
    async with service.gateway:
        service.gate = anyio.Event()
        answers: list[Any] = []

        async def post() -> None:
            answers.append(await service.post("k"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(post)
            await service.entered.wait()
            own_redis.kill()
            service.gate.set()
        assert answers[0][0] == 201
        own_redis.start()
        with anyio.fail_after(20):
            while (status := (await service.post("k"))[0]) == 503:  # noqa: ASYNC110 (the server tells nobody)
                await anyio.sleep(0.05)
        assert status == 409, "it is marked until its time is over, as if the gateway had crashed"
        assert len(service.effects) == 1


async def test_the_mark_of_a_crashed_gateway_ends(redis_url: str) -> None:
    now = [100.0]
    async with RedisClient(redis_url) as redis:
        for store in (RedisAnswers(redis, 5.0), MemoryAnswers(10, 1_000, clock=lambda: now[0])):
            assert await store.begin("k", b"f", "crashed", 0.2) is Held.OURS
            assert await store.begin("k", b"f", "next", 0.2) is Held.IN_FLIGHT
            now[0] += 1.0
            with anyio.fail_after(20):
                while await store.begin("k", b"g", "next", 60.0) is not Held.OURS:  # noqa: ASYNC110 (the server tells nobody)
                    await anyio.sleep(0.05)
            await store.keep("k", "crashed", Answer(200, [], b"late"), 60.0)
            await store.release("k", "crashed")
            assert await store.begin("k", b"g", "third", 60.0) is Held.IN_FLIGHT, "fenced"


async def test_answers_end_with_their_time(redis_url: str) -> None:
    now = [100.0]
    async with RedisClient(redis_url) as redis:
        for store in (RedisAnswers(redis, 5.0), MemoryAnswers(10, 1_000, clock=lambda: now[0])):
            await store.begin("k", b"f", "t", 60.0)
            await store.keep("k", "t", Answer(200, [], b"a"), 0.1)
            now[0] += 1.0
            with anyio.fail_after(20):
                while await store.begin("k", b"f", "t2", 60.0) is not Held.OURS:  # noqa: ASYNC110 (the server tells nobody)
                    await anyio.sleep(0.05)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    actions=st.lists(
        st.tuples(
            st.sampled_from(["begin", "keep", "release"]),
            st.sampled_from("kl"),
            st.sampled_from("fg"),
            st.sampled_from("tu"),
        ),
        max_size=20,
    )
)
async def test_both_stores_answer_alike_whatever_comes(
    actions: list[tuple[str, str, str, str]], redis_server: RedisServer
) -> None:
    async with RedisClient(redis_server.url) as redis:
        await redis.call("DEL", "bascule:idempotency:k", "bascule:idempotency:l")
        stores = (RedisAnswers(redis, 5.0), MemoryAnswers(10, 1_000))
        for number, (action, key, fingerprint, token) in enumerate(actions):
            answers = []
            for store in stores:
                if action == "begin":
                    answers.append(await store.begin(key, fingerprint.encode(), token, 60.0))
                elif action == "keep":
                    answer = Answer(200, [("a", "b")], str(number).encode())
                    await store.keep(key, token, answer, 60.0)
                else:
                    await store.release(key, token)
            assert answers[:1] == answers[1:]


async def test_a_process_keeps_a_bounded_number_of_answers_and_bytes() -> None:
    store = MemoryAnswers(3, 1_000)
    for number in range(10):
        await store.begin(str(number), b"f", "t", 60.0)
        await store.keep(str(number), "t", Answer(200, [], b"a"), 60.0)
    assert len(store) == 3
    assert await store.begin("9", b"f", "t", 60.0) == Answer(200, [], b"a")
    await store.begin("big", b"f", "t", 60.0)
    await store.keep("big", "t", Answer(200, [], b"a" * 999), 60.0)
    assert len(store) == 2
    for number in range(5):
        await store.begin(f"marked {number}", b"f", "t", 60.0)
    assert await store.begin("marked 0", b"f", "t2", 60.0) is Held.IN_FLIGHT, "marks stay"


async def test_a_service_gets_the_key_and_a_bad_document_keeps_none(tmp_path: Path) -> None:
    shop: ShopGateway
    async with running(tmp_path) as shop:
        bad = await shop.ask("POST", "/api/v1/users", {"emial": "x"}, idempotency_key="k1")
        assert bad[0] == 400
        good = await shop.ask(
            "POST", "/api/v1/users", {"email": "a@b.example"}, idempotency_key="k1"
        )
        assert good[0] == 201
        assert shop.users.metadata["idempotency-key"] == "k1"
        shop.users.metadata = {}
        again = await shop.ask(
            "POST", "/api/v1/users", {"email": "a@b.example"}, idempotency_key="k1"
        )
        assert (again[0], again[2], again[1]["location"]) == (201, good[2], good[1]["location"])
        assert shop.users.metadata == {}, "the service was not asked"


@pytest.mark.parametrize(
    "wrong", [{"ttl": 0.0}, {"max_answers": 0}, {"away": "local"}, {"timeout": -1.0}]
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="IdempotencyConfig"):
        IdempotencyConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"limit_away": "somewhere"}, {"limit_timeout": 0.0}])
def test_a_shared_limit_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="limit_"):
        GatewayConfig({}, **wrong)
