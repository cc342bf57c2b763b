"""The health service by its own methods: what it answers, and what a watcher hears."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bascule.errors import RpcError, Status
from bascule.rpc import HealthService
from bascule.rpc._generated.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
)
from bascule.rpc._health import HEALTH_CHECK, HEALTH_LIST, HEALTH_WATCH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


async def check(health: HealthService, service: str) -> Any:
    return (
        await health.__mapping__()[HEALTH_CHECK.path].direct(HealthCheckRequest(service=service))
    ).status


def watch(health: HealthService, service: str) -> AsyncIterator[Any]:
    return health.__mapping__()[HEALTH_WATCH.path].direct(HealthCheckRequest(service=service))  # type: ignore[no-any-return]


async def test_the_server_is_serving_until_told_otherwise() -> None:
    health = HealthService(["a"])
    assert await check(health, "") == SERVING
    assert await check(health, "a") == SERVING
    health.set("", serving=False)
    assert await check(health, "") == NOT_SERVING
    assert await check(health, "a") == SERVING


async def test_check_of_an_unknown_service_is_not_found() -> None:
    with pytest.raises(RpcError, match="service 'b' is not known here") as raised:
        await check(HealthService(["a"]), "b")
    assert raised.value.status is Status.NOT_FOUND


async def test_nothing_serves_after_shutdown() -> None:
    health = HealthService(["a"])
    health.shutdown()
    health.set("a", serving=True)
    health.set("b", serving=True)
    assert [await check(health, name) for name in ("", "a", "b")] == [NOT_SERVING] * 3


async def test_list_names_at_most_a_hundred() -> None:
    health = HealthService([f"s{number}" for number in range(99)])
    names = (await health.__mapping__()[HEALTH_LIST.path].direct(HealthListRequest())).statuses
    assert len(names) == 100
    health.set("one more", serving=True)
    with pytest.raises(RpcError, match="101 services") as raised:
        await health.__mapping__()[HEALTH_LIST.path].direct(HealthListRequest())
    assert raised.value.status is Status.RESOURCE_EXHAUSTED


async def test_a_watcher_hears_each_change_once_and_the_end() -> None:
    health = HealthService()
    heard: list[Any] = []

    async def listen() -> None:
        async with aclosing(watch(health, "a")) as responses:
            async for response in responses:
                heard.append(response.status)  # noqa: PERF401 - as they come

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            assert heard == [SERVICE_UNKNOWN]
            health.set("a", serving=True)
            await anyio.wait_all_tasks_blocked()
            health.set("a", serving=True)
            health.set("other", serving=False)
            await anyio.wait_all_tasks_blocked()
            assert heard == [SERVICE_UNKNOWN, SERVING]
            health.shutdown()
    assert heard == [SERVICE_UNKNOWN, SERVING, NOT_SERVING]


async def test_a_slow_watcher_hears_only_the_latest_state() -> None:
    health = HealthService(["a"])
    async with aclosing(watch(health, "a")) as responses:
        assert (await anext(responses)).status == SERVING
        for number in range(1001):
            health.set("a", serving=bool(number % 2))
        assert (await anext(responses)).status == NOT_SERVING
        health.set("a", serving=True)
        health.set("a", serving=False)
        with anyio.move_on_after(0) as scope:
            await checkpoint()
            await anext(responses)
        assert scope.cancelled_caught


async def test_a_watch_that_begins_after_shutdown_ends_at_once() -> None:
    health = HealthService(["a"])
    health.shutdown()
    with anyio.fail_after(5):
        assert [response.status async for response in watch(health, "a")] == [NOT_SERVING]
        assert [response.status async for response in watch(health, "b")] == [SERVICE_UNKNOWN]
