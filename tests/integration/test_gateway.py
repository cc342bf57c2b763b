"""The shop's gateway in front of real gRPC servers: the handler itself, on both loops."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from opentelemetry.trace import SpanKind
from tests.integration.gateway_shop import Shop, Users, running
from tests.tracing import Spans, exceptions_of, is_child, status_of

from bascule.discovery import MemoryRegistry
from bascule.gateway import (
    DevelopmentKey,
    LimitConfig,
    LineLog,
)
from bascule.observe import TraceContext
from bascule_shop.gateway import shop_gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with running(tmp_path) as shop:
        yield shop


async def test_a_declared_route_answers_json(shop: Shop) -> None:
    status, headers, body = await shop.ask("GET", "/api/v1/users/u-1", token=shop.token)
    assert (status, body) == (200, {"id": "u-1", "email": "a@example.org", "displayName": "Grüße"})
    assert headers["content-type"] == "application/json"
    assert headers["ratelimit-policy"] == '"subject";q=1000;w=60'
    assert headers["ratelimit"] == '"subject";r=999;t=1'
    assert len(headers["x-request-id"]) == 32


async def test_what_is_forwarded_is_what_the_list_allows(shop: Shop) -> None:
    await shop.ask(
        "GET",
        "/api/v1/users/u-1",
        token=shop.token,
        x_request_id="req-1",
        traceparent=PARENT,
        tracestate="v=1",
        accept_language="de",
        idempotency_key="k\u00e9y",
        cookie="a=b",
        grpc_timeout="1n",
        x_bascule_subject="admin",
        x_forwarded_for="10.0.0.1",
        te="trailers",
        connection="keep-alive",
    )
    seen = {name: value for name, value in shop.users.metadata.items() if name != "user-agent"}
    assert seen == {
        "x-request-id": "req-1",
        "traceparent": PARENT,
        "tracestate": "v=1",
        "accept-language": "de",
        "x-bascule-subject": "user-1",
    }
    assert 14 < shop.users.time_left <= 15


async def test_a_created_order_has_a_location_and_the_subject_of_the_token(shop: Shop) -> None:
    status, headers, body = await shop.ask(
        "POST", "/api/v1/orders", {"items": [{"productId": "p", "quantity": 2}]}, token=shop.token
    )
    assert (status, headers["location"]) == (201, "/api/v1/orders/o-1")
    assert (body["userId"], body["lines"][0]["quantity"]) == ("user-1", 2)


async def test_a_location_is_escaped(shop: Shop) -> None:
    status, headers, _ = await shop.ask("POST", "/api/v1/users", {"email": "a@b.example"})
    assert (status, headers["location"]) == (201, "/api/v1/users/a%20b%2Fc")


async def test_a_query_reaches_the_message(shop: Shop) -> None:
    status, _, body = await shop.ask("GET", "/api/v1/products?page_size=2")
    assert (status, body["products"]) == (200, [{"id": "0"}, {"id": "1"}])


@pytest.mark.parametrize(
    ("status", "http"),
    [("NOT_FOUND", 404), ("ALREADY_EXISTS", 409), ("FAILED_PRECONDITION", 400), ("INTERNAL", 500)],
)
async def test_a_status_of_the_service_is_mapped(shop: Shop, status: str, http: int) -> None:
    answer = await shop.ask("GET", f"/api/v1/users/{status}", token=shop.token)
    assert answer[0] == http
    assert answer[1]["retry-after"] == "7"
    assert answer[2]["message"] == f"as asked: {status}"
    assert answer[2]["details"] == [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}
    ]


async def test_field_violations_of_the_service_arrive(shop: Shop) -> None:
    status, _, body = await shop.ask("POST", "/api/v1/users", {"displayName": "x"})
    assert status == 400
    assert body["details"][0]["fieldViolations"] == [
        {"field": "email", "description": "must not be empty"}
    ]


@pytest.mark.parametrize(
    ("document", "field_name"),
    [
        ({"items": [{"productId": "p", "quantity": "many"}]}, "items[0].quantity"),
        ({"itemz": []}, "itemz"),
        ({"items": [{"quantity": 1e400}]}, "items[0].quantity"),
        (b'{"items": [{"productId": 7}]}', "items[0].productId"),
        (b"{", ""),
        (b"[" * 100_000, ""),
        (b'{"userId": "\xff"}', ""),
        ([], ""),
    ],
)
async def test_a_bad_document_is_a_400_that_names_the_field(
    shop: Shop, document: Any, field_name: str
) -> None:
    status, _, body = await shop.ask("POST", "/api/v1/orders", document, token=shop.token)
    assert (status, body["code"]) == (400, 3)
    assert body["details"][0]["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    assert body["details"][0]["fieldViolations"][0]["field"] == field_name


async def test_routes_that_do_not_exist(shop: Shop) -> None:
    assert (await shop.ask("GET", "/api/v2/users"))[0] == 404
    status, headers, _ = await shop.ask("DELETE", "/api/v1/users")
    assert (status, headers["allow"]) == (405, "GET, HEAD, POST")
    assert (await shop.ask("GET", "/api/v1/users/%2e%2e/x"))[0] == 400
    assert (await shop.ask("GET", "api/v1/users"))[0] == 400


async def test_head_is_answered_as_get(shop: Shop) -> None:
    assert (await shop.ask("HEAD", "/api/v1/products"))[0] == 200


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 201),
        ("Application/JSON; charset=UTF-8", 201),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ],
)
async def test_only_json_bodies_are_read(shop: Shop, content_type: str, status: int) -> None:
    answer = await shop.ask(
        "POST", "/api/v1/users", {"email": "a@b.example"}, content_type=content_type
    )
    assert answer[0] == status
    assert (answer[1].get("accept") == "application/json") == (status == 415)


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("*/*", 200),
        ("", 200),
        ("application/json", 200),
        ("text/html, application/*;q=0.8", 200),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 200),
        ("text/html", 406),
        ("application/json;q=0, */*", 406),
        ("application/json;q=x", 200),
    ],
)
async def test_only_json_is_answered(shop: Shop, accept: str, status: int) -> None:
    assert (await shop.ask("GET", "/api/v1/products", accept=accept))[0] == status


@pytest.mark.parametrize(
    ("problem", "http"),
    [("malformed", 400), ("body_too_large", 413), ("headers_too_large", 431), ("timeout", 408)],
)
async def test_what_the_engine_could_not_take_is_worded(
    shop: Shop, problem: str, http: int
) -> None:
    assert (await shop.ask("", "", problem=problem))[0] == http


async def test_protected_routes_want_a_good_token(shop: Shop) -> None:
    status, headers, body = await shop.ask("GET", "/api/v1/users/u-1")
    assert (status, body["code"]) == (401, 16)
    assert headers["www-authenticate"] == 'Bearer realm="bascule"'
    status, headers, _ = await shop.ask("GET", "/api/v1/users/u-1", token=shop.token + "x")
    assert status == 401
    assert 'error="invalid_token"' in headers["www-authenticate"]
    # A public route needs no token, but a bad one is a mistake that its sender should hear of.
    assert (await shop.ask("GET", "/api/v1/products", token="bad"))[0] == 401


async def test_a_missing_scope_is_403_and_names_it(shop: Shop) -> None:
    token = shop.key.mint_token("user-1", scopes=["a"])
    status, headers, _ = await shop.ask("GET", "/api/v1/python/x", token=token)
    assert status == 403
    assert headers["www-authenticate"].endswith('error="insufficient_scope", scope="b"')


async def test_a_python_handler_has_the_same_middleware(shop: Shop) -> None:
    token = shop.key.mint_token("user-2", scopes=["a", "b"])
    status, headers, body = await shop.ask("GET", "/api/v1/python/me?a=1", token=token)
    assert (status, body) == (200, ["me", "a=1", "user-2"])
    assert headers["ratelimit"].startswith('"subject";r=999')


async def test_a_fault_of_ours_tells_the_client_nothing(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    token = shop.key.mint_token("user-2", scopes=["a", "b"])
    status, headers, body = await shop.ask("GET", "/api/v1/python/fails", token=token)
    assert (status, body["code"]) == (500, 13)
    assert "secret" not in json.dumps(body)
    assert headers["x-request-id"] in body["message"]
    assert "a secret of the inside" in caplog.text


async def test_a_subject_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with running(tmp_path, subject_limit=LimitConfig(requests=2, per=3600.0)) as shop:
        for _ in range(2):
            assert (await shop.ask("GET", "/api/v1/users/u-1", token=shop.token))[0] == 200
        status, headers, body = await shop.ask("GET", "/api/v1/users/u-1", token=shop.token)
        assert (status, body["code"]) == (429, 8)
        assert headers["ratelimit"].startswith('"subject";r=0;t=')
        assert 0 < int(headers["retry-after"]) <= 1800
        other = shop.key.mint_token("user-2")
        assert (await shop.ask("GET", "/api/v1/users/u-1", token=other))[0] == 200
        # Without a token, the address is the subject.
        answers = [(await shop.ask("GET", "/api/v1/products"))[0] for _ in range(3)]
        assert answers == [200, 200, 429]
        assert (await shop.ask("GET", "/api/v1/products", peer="192.0.2.2:1"))[0] == 200


async def test_an_address_is_limited_before_its_tokens_are_looked_at(tmp_path: Path) -> None:
    async with running(tmp_path, address_limit=LimitConfig(requests=1, per=3600.0)) as shop:
        assert (await shop.ask("GET", "/api/v1/users/u-1", token="bad"))[0] == 401
        status, headers, _ = await shop.ask("GET", "/api/v1/users/u-1", token="bad")
        assert (status, headers["ratelimit-policy"]) == (429, '"address";q=1;w=3600')
        assert (await shop.ask("GET", "/nowhere"))[0] == 429
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await shop.ask("GET", path))[0] == 200


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", ""])
async def test_a_timeout_that_is_none_is_a_400(shop: Shop, value: str) -> None:
    status, _, body = await shop.ask("GET", "/api/v1/products", x_request_timeout=value)
    assert status == 400
    assert body["details"][0]["fieldViolations"][0]["field"] == "x-request-timeout"


async def test_a_client_may_have_less_time_but_not_more(shop: Shop) -> None:
    await shop.ask("GET", "/api/v1/users/u-1", token=shop.token, x_request_timeout="2.5")
    assert 1 < shop.users.time_left <= 2.5
    await shop.ask("GET", "/api/v1/users/u-1", token=shop.token, x_request_timeout="3600")
    assert shop.users.time_left <= 15


async def test_a_service_that_is_late_is_504(shop: Shop) -> None:
    status, _, body = await shop.ask(
        "GET", "/api/v1/users/hang", token=shop.token, x_request_timeout="0.05"
    )
    assert (status, body["code"]) == (504, 4)
    await shop.users.cancelled.wait()


async def test_a_client_that_leaves_cancels_the_call_and_is_logged(shop: Shop) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            lambda: shop.ask("GET", "/api/v1/users/hang", token=shop.token, x_request_id="left")
        )
        await shop.users.begun.wait()
        tasks.cancel_scope.cancel()
    await shop.users.cancelled.wait()
    _, _, text = await shop.ask("GET", "/metrics")
    assert 'http_requests_total{method="GET",route="/api/v1/users/{id}",status="499"} 1.0' in text


async def test_a_service_without_instances_is_unavailable(tmp_path: Path) -> None:
    key = DevelopmentKey(tmp_path)
    gateway = shop_gateway(
        key.auth,
        listen="127.0.0.1:0",
        registry=MemoryRegistry(),
        access_log=LineLog(io.BytesIO()),
        grace=0.0,
    )
    async with gateway:
        status, headers, body = await Shop(gateway, Users(), "", key).ask("GET", "/api/v1/products")
    assert (status, body["code"]) == (503, 14)
    assert int(headers["retry-after"]) >= 1


async def test_a_breaker_opens_shows_and_tells_when_to_come_back(shop: Shop) -> None:
    def state(text: str) -> list[str]:
        lines = [line for line in text.splitlines() if line.startswith("circuit_breaker_state{")]
        return [line[-3:] for line in lines if "user.UserService" in line]

    assert state((await shop.ask("GET", "/metrics"))[2]) == ["0.0"]
    for _ in range(5):
        assert (await shop.ask("GET", "/api/v1/users/UNAVAILABLE", token=shop.token))[0] == 503
    shop.users.metadata = {}
    status, headers, body = await shop.ask("GET", "/api/v1/users/u-1", token=shop.token)
    assert (status, body["code"]) == (503, 14)
    assert 0 < int(headers["retry-after"]) <= 30
    assert not shop.users.metadata, "nothing was sent"
    assert state((await shop.ask("GET", "/metrics"))[2]) == ["1.0"]


async def test_probes_and_metrics(tmp_path: Path) -> None:
    answers = iter([True, False])

    async def ready() -> bool:
        return next(answers)

    async with running(tmp_path, ready=ready) as shop:
        assert (await shop.ask("GET", "/healthz"))[0] == 200
        assert [(await shop.ask("GET", "/readyz"))[0] for _ in range(3)] == [200, 503, 503]
        await shop.ask("GET", "/api/v1/users/u-1", token=shop.token)
        await shop.ask("GET", "/api/v1/users/u-1", token="bad")
        await shop.ask("GET", "/nowhere")
        status, headers, text = await shop.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    for line in (
        'http_requests_total{method="GET",route="/api/v1/users/{id}",status="200"} 1.0',
        'http_requests_total{method="GET",route="/api/v1/users/{id}",status="401"} 1.0',
        'http_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'grpc_client_requests_total{method="GetUser",service="user.UserService",status="OK"} 1.0',
        'auth_refused_total{reason="malformed"} 1.0',
        'rate_limit_decisions_total{limit="address",outcome="admitted"} 3.0',
    ):
        assert line in text
    assert 'circuit_breaker_state{name="user.UserService' in text


async def test_every_request_leaves_one_line(tmp_path: Path) -> None:
    async with running(tmp_path) as shop:
        await shop.ask("GET", "/api/v1/users/u-1", token=shop.token, traceparent=PARENT)
        await shop.ask("GET", "/a\r\nb\x1b", x_request_id="x\r\ny")
        await shop.ask("", "", problem="malformed")
    first, second, third = (json.loads(line) for line in shop.log.getvalue().splitlines())
    assert (first["event"], first["status"], first["route"]) == (
        "request",
        200,
        "/api/v1/users/{id}",
    )
    assert (first["subject"], first["trace_id"]) == ("user-1", PARENT.split("-")[1])
    assert second["status"] == 400
    assert len(second["request_id"]) == 32
    assert third["status"] == 400
    assert "error" not in first
    assert second["error"].isprintable()


async def test_not_ready_before_it_listens_and_after(tmp_path: Path) -> None:
    key = DevelopmentKey(tmp_path)
    gateway = shop_gateway(
        key.auth, listen="127.0.0.1:0", registry=MemoryRegistry(), access_log=LineLog(io.BytesIO())
    )
    shop = Shop(gateway, Users(), "", key)
    assert (await shop.ask("GET", "/readyz"))[0] == 503
    async with gateway:
        assert gateway.addresses
        assert (await shop.ask("GET", "/readyz"))[0] == 200
    assert not gateway.addresses
    assert (await shop.ask("GET", "/readyz"))[0] == 503


async def test_each_request_has_a_span_which_is_the_parent_upstream(tmp_path: Path) -> None:
    spans = Spans()
    async with spans.tracer, running(tmp_path, tracer=spans.tracer) as shop:
        await shop.ask("GET", "/api/v1/users/u-1", token=shop.token, traceparent=PARENT)
        await shop.ask("GET", "/nowhere?a=1", traceparent="00-bad")
        await shop.ask("GET", "/healthz")
        await shop.ask("BREW", "/api/v1/users")
        await shop.ask("GET", "/api/v1/users/INTERNAL", token=shop.token)
        call, served, missed, odd, _, broken = await spans.all()
    assert is_child(call, served)
    assert shop.users.metadata["traceparent"]
    parent = TraceContext.parse(PARENT)
    assert parent is not None
    assert served.parent is not None
    assert f"{served.parent.span_id:016x}" == parent.span_id
    assert served.kind is SpanKind.SERVER
    assert [each.name for each in (served, missed, odd, broken)] == [
        "GET /api/v1/users/{id}",
        "GET",
        "HTTP",
        "GET /api/v1/users/{id}",
    ]
    assert served.attributes is not None
    assert (
        served.attributes.items()
        >= {
            "http.request.method": "GET",
            "http.route": "/api/v1/users/{id}",
            "http.response.status_code": 200,
            "url.path": "/api/v1/users/u-1",
        }.items()
    )
    assert [status_of(each) for each in (served, missed, odd, broken)] == ["UNSET"] * 3 + ["ERROR"]
    assert exceptions_of(broken) == []


async def test_requests_in_progress_finish_when_the_gateway_stops(tmp_path: Path) -> None:
    answers: list[int] = []

    async def ask(url: str, token: str) -> None:
        headers = {"authorization": f"Bearer {token}", "x-request-timeout": "0.2"}
        async with httpx.AsyncClient(trust_env=False) as client:
            answers.append((await client.get(url, headers=headers)).status_code)

    async with anyio.create_task_group() as tasks, running(tmp_path, grace=5.0) as shop:
        url = f"http://{shop.gateway.addresses[0]}/api/v1/users/hang"
        tasks.start_soon(ask, url, shop.token)
        await shop.users.begun.wait()
    assert answers == [504]
