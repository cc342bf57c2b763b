"""The rate limit that gateways share, on a real Redis, against the limiter in Rust."""

from __future__ import annotations

import multiprocessing
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.limited_gateway import serve

from bascule import _core
from bascule._redis import RedisScript
from bascule.errors import ConfigurationError, RateLimitedError
from bascule.observe import Metrics
from bascule.resilience import (
    Away,
    BreakerSettings,
    BreakerState,
    LimitAlgorithm,
    RedisClient,
    SharedRateLimiter,
)
from bascule.resilience._limit_scripts import BODIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bascule.testing.servers import RedisServer

pytestmark = pytest.mark.anyio

#: As they are, but for the clock.
AT = {
    algorithm: RedisScript("local now = tonumber(ARGV[5])\n" + body)
    for algorithm, body in BODIES.items()
}
GCRA, WINDOW = AT[LimitAlgorithm.GCRA], AT[LimitAlgorithm.SLIDING_WINDOW]
SECOND = 1_000_000


@asynccontextmanager
async def limiter(url: str, rate: int, per: float, **settings: Any) -> AsyncIterator[Any]:
    async with RedisClient(url, timeout=2.0) as redis:
        await redis.call("PING")
        yield SharedRateLimiter(redis, rate, per, **{"timeout": 1.0, **settings})


@pytest.mark.parametrize("algorithm", list(LimitAlgorithm))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rate=st.integers(1, 20),
    # Long enough that Redis, whose own clock forgets the keys, forgets none while the test runs.
    period=st.one_of(
        st.integers(1_000 * SECOND, 10_000 * SECOND), st.just(1_001 * SECOND + 333_667)
    ),
    burst=st.integers(1, 6),
    steps=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 2), st.integers(0, 7)), max_size=40
    ),
)
async def test_the_script_decides_as_the_limiter_in_rust(
    algorithm: LimitAlgorithm,
    rate: int,
    period: int,
    burst: int,
    steps: list[tuple[int, int, int]],
    redis_server: RedisServer,
) -> None:
    """In microseconds, which is what Redis's clock counts: each figure is the same, to the last."""
    burst = rate if algorithm is LimitAlgorithm.SLIDING_WINDOW else burst
    model = _core.KeyedLimiter(
        algorithm=algorithm, limit=rate, period_ns=period, burst=burst, max_keys=8
    )
    now = 1_800_000_000 * SECOND
    async with RedisClient(redis_server.url) as redis:
        await redis.call("DEL", "tested")
        for twentieths, more, cost in steps:
            now += period * twentieths // 20 + more
            answer = await redis.run(AT[algorithm], ["tested"], [rate, period, burst, cost, now])
            expected = model.check("tested", cost, now)
            retry = -1 if expected.retry_after_ns is None else expected.retry_after_ns
            assert answer == [
                int(expected.allowed),
                expected.remaining,
                expected.reset_after_ns,
                retry,
            ]


async def test_a_clock_that_goes_backwards_blocks_for_one_period_at_most(redis_url: str) -> None:
    async with RedisClient(redis_url) as redis:
        now = 1_800_000_000 * SECOND
        assert (await redis.run(GCRA, ["k"], [10, 60 * SECOND, 10, 10, now]))[0] == 1
        answer = await redis.run(GCRA, ["k"], [10, 60 * SECOND, 10, 1, now - 86_400 * SECOND])
        assert answer == [0, 0, 60 * SECOND, 6 * SECOND]


async def test_a_window_that_lies_ahead_counts_as_this_one(redis_url: str) -> None:
    async with RedisClient(redis_url) as redis:
        now = 1_800_000_000 * SECOND
        assert (await redis.run(WINDOW, ["k"], [10, 60 * SECOND, 10, 10, now]))[0] == 1
        earlier = now - 86_400 * SECOND + 15 * SECOND
        answer = await redis.run(WINDOW, ["k"], [10, 60 * SECOND, 10, 1, earlier])
        assert answer == [0, 0, 105 * SECOND, 51 * SECOND]


@pytest.mark.parametrize("algorithm", [LimitAlgorithm.GCRA, LimitAlgorithm.SLIDING_WINDOW])
async def test_redis_forgets_a_key_once_it_has_rested(
    redis_url: str, algorithm: LimitAlgorithm
) -> None:
    async with RedisClient(redis_url) as redis:
        now = 1_800_000_000 * SECOND + 15 * SECOND
        await redis.run(AT[algorithm], ["k"], [10, 60 * SECOND, 10, 0, now])
        assert await redis.call("EXISTS", "k") == 0, "to look leaves nothing"
        answer = await redis.run(AT[algorithm], ["k"], [10, 60 * SECOND, 10, 10, now])
        left = int(str(await redis.call("PTTL", "k")))
        assert 0 <= answer[2] / 1000 - left < 20_000


@pytest.mark.parametrize("algorithm", [LimitAlgorithm.GCRA, LimitAlgorithm.SLIDING_WINDOW])
async def test_what_something_else_has_kept_counts_as_nothing(
    redis_url: str, algorithm: LimitAlgorithm
) -> None:
    async with RedisClient(redis_url) as redis:
        await redis.call("SET", "k", "1 2 three")
        now = 1_800_000_000 * SECOND
        answer = await redis.run(AT[algorithm], ["k"], [10, 60 * SECOND, 10, 1, now])
        assert answer[:2] == [1, 9]


async def test_windows_are_shared_and_so_are_their_refusals(redis_url: str) -> None:
    clock = [10**18]
    window = LimitAlgorithm.SLIDING_WINDOW
    async with RedisClient(redis_url) as redis:
        # An hour's windows: if one ends meanwhile, less than a unit has faded.
        one = SharedRateLimiter(
            redis, 40, 3600.0, algorithm="sliding_window", timeout=5.0, clock=lambda: clock[0]
        )
        two = SharedRateLimiter(redis, 40, 3600.0, algorithm=window, timeout=5.0)
        other = SharedRateLimiter(redis, 40, 3600.0, timeout=5.0)
        assert await one.check("a", 30)
        assert (await two.check("a", 5)).remaining == 5
        assert await two.check("a", 5)
        refused = await one.check("a")
        assert not refused
        assert (refused.limit, refused.remaining, refused.degraded) == (40, 0, False)
        assert refused.retry_after is not None
        assert 0 < refused.retry_after <= 3690.0
        assert refused.retry_after < refused.reset_after <= 7200.0
        asked = await calls(redis)
        for _ in range(50):
            assert not await one.check("a")
        assert await calls(redis) == asked, "Redis was not asked"
        clock[0] += 3_700 * 10**9
        assert not await one.check("a"), "Redis's own clock decides"
        assert await calls(redis) == asked + 1
        assert (await other.check("a")).remaining == 39, "another way to count has keys of its own"


async def test_limiters_share_one_budget_and_agree_on_it(redis_url: str) -> None:
    async with limiter(redis_url, 10, 60.0) as one, limiter(redis_url, 10, 60.0) as two:
        decisions = [await each.check("a") for _ in range(6) for each in (one, two)]
    assert [decision.allowed for decision in decisions] == [True] * 10 + [False] * 2
    assert [decision.remaining for decision in decisions] == [*range(9, -1, -1), 0, 0]
    assert 5 < decisions[-1].retry_after <= 6
    assert 59 < decisions[-1].reset_after <= 60
    assert not decisions[-1]
    assert decisions[0].limit == 10


async def test_what_redis_has_refused_is_refused_here_until_the_time_it_named(
    redis_url: str,
) -> None:
    clock = [10**18]
    async with RedisClient(redis_url) as redis:
        one = SharedRateLimiter(redis, 2, 60.0, timeout=1.0, clock=lambda: clock[0])
        two = SharedRateLimiter(redis, 2, 60.0, timeout=1.0)
        assert await two.check("a", 2)
        assert not await one.check("a")
        asked = await calls(redis)
        for _ in range(50):
            decision = await one.check("a")
            assert not decision
            assert 29 < decision.retry_after <= 30
            clock[0] += 1_000
        assert await calls(redis) == asked, "Redis was not asked"
        clock[0] += 31 * 10**9
        assert not await one.check("a"), "Redis's own clock decides"
        assert await calls(redis) == asked + 1


async def test_what_this_process_has_used_up_is_refused_without_asking(redis_url: str) -> None:
    async with RedisClient(redis_url) as redis:
        one = SharedRateLimiter(redis, 3, 60.0, timeout=1.0)
        for _ in range(3):
            assert await one.check("a")
        asked = await calls(redis)
        assert not await one.check("a")
        assert not await one.check("a", 2)
        assert await calls(redis) == asked
        assert await one.check("a", 0), "to look is free"


async def test_windows_that_end_elsewhere_do_not_end_here(redis_url: str) -> None:
    """All of a window is used up by this clock; by Redis's it has passed, and Redis's decides."""
    async with RedisClient(redis_url) as redis:
        one = SharedRateLimiter(redis, 3, 60.0, algorithm="sliding_window", timeout=5.0)
        assert await one.check("a", 3)
        assert await redis.call("DEL", "bascule:limit:window:rate limit:a") == 1
        assert await one.check("a", 3)


async def test_a_shared_limiter_raises_and_is_counted(redis_url: str) -> None:
    metrics = Metrics()
    async with RedisClient(redis_url) as redis:
        one = SharedRateLimiter(redis, 3, 60.0, name="mails", timeout=5.0)
        metrics.add_limiter(one)
        assert (await one.require("a", 2)).remaining == 1
        await one.check("a", 0)
        with pytest.raises(RateLimitedError, match="'mails' is used up; try again in ") as caught:
            await one.require("a", 2)
        assert caught.value.retry_after is not None
        text = metrics.render()[0].decode()
    for line in (
        'rate_limit_decisions_total{limit="mails",outcome="admitted"} 1.0',
        'rate_limit_decisions_total{limit="mails",outcome="rejected"} 1.0',
        'rate_limit_degraded_total{limit="mails"} 0.0',
        'rate_limit_keys{limit="mails"} 1.0',
    ):
        assert line in text


async def calls(redis: RedisClient) -> int:
    """How many scripts the server has run."""
    info = str(await redis.call("INFO", "commandstats"))
    return sum(
        int(line.partition("calls=")[2].partition(",")[0])
        for line in info.replace("\\r\\n", "\n").split("\n")
        if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:"))
    )


async def test_a_server_that_forgot_the_script_is_told_again(redis_url: str) -> None:
    async with RedisClient(redis_url) as redis:
        one = SharedRateLimiter(redis, 5, 60.0, timeout=1.0)
        assert await one.check("a")
        await redis.call("SCRIPT", "FLUSH")
        assert (await one.check("a")).remaining == 3
        assert one.degraded == 0


@pytest.mark.parametrize("away", list(Away))
async def test_while_redis_is_away_it_does_what_was_declared_and_costs_nothing(
    own_redis: RedisServer, away: Away
) -> None:
    quick = BreakerSettings(failure_threshold=3, success_threshold=1, timeout=0.2)
    async with limiter(own_redis.url, 2, 60.0, away=away, breaker=quick, timeout=0.3) as one:
        assert await one.check("a")
        # It takes connections and answers nothing: the worst of all ways to be away.
        own_redis.pause()
        decisions = [await one.check("a") for _ in range(4)]
        assert all(decision.degraded for decision in decisions[:1])
        expected = {
            Away.OPEN: [True] * 4,
            Away.CLOSED: [False] * 4,
            Away.LOCAL: [True] + [False] * 3,
        }[away]
        assert [decision.allowed for decision in decisions] == expected
        if away is not Away.LOCAL:
            assert one.breaker_state is BreakerState.OPEN
            begun = anyio.current_time()
            for number in range(1_000):
                await one.check(str(number))
            assert anyio.current_time() - begun < 20.0, "one late answer in 0.2 s, not 1,000"
            assert one.degraded == 1_004
        own_redis.resume()
        with anyio.fail_after(20):
            while (await one.check("b", 0)).degraded:  # noqa: ASYNC110 (the server tells nobody)
                await anyio.sleep(0.05)


async def test_after_a_restart_redis_is_asked_again_by_itself(own_redis: RedisServer) -> None:
    quick = BreakerSettings(failure_threshold=1, success_threshold=1, timeout=0.05)
    async with limiter(own_redis.url, 5, 60.0, breaker=quick) as one:
        assert (await one.check("a")).remaining == 4
        own_redis.kill()
        assert (await one.check("a")).degraded
        own_redis.start()
        with anyio.fail_after(20):
            while (await one.check("a", 0)).degraded:  # noqa: ASYNC110 (the server tells nobody)
                await anyio.sleep(0.02)
        assert (await one.check("a", 0)).remaining == 4, "a durable Redis has kept the count"


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0},
        {"per": 0.0},
        {"per": 1e9},
        {"timeout": 0.0},
        {"away": "somewhere"},
        {"algorithm": "log"},
        {"algorithm": "sliding_window", "burst": 7},
    ],
)
def test_a_limit_that_cannot_be_counted_is_refused(wrong: dict[str, Any]) -> None:
    redis = RedisClient("redis://localhost")
    with pytest.raises(ConfigurationError):
        SharedRateLimiter(redis, **{"rate": 1_000_000, "per": 1.0, **wrong})


@pytest.mark.parametrize(
    ("anyio_backend", "algorithm", "longest"),
    [("asyncio", LimitAlgorithm.GCRA, 72), ("trio", LimitAlgorithm.SLIDING_WINDOW, 3_672)],
)
async def test_two_gateways_in_two_processes_admit_no_more_than_one(
    redis_url: str, algorithm: LimitAlgorithm, longest: int
) -> None:
    """Each is on a loop of its own, whichever loop asks them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.limited_gateway"])
    requests, processes, ports = 50, [], []
    try:
        for backend in ("asyncio", "trio"):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=serve, args=(backend, redis_url, requests, algorithm, theirs)
            )
            process.start()
            processes.append(process)
            ports.append(await anyio.to_thread.run_sync(ours.recv))
        statuses: list[int] = []
        async with httpx.AsyncClient(timeout=20.0) as client:

            async def ask(port: int) -> None:
                for _ in range(requests):
                    response = await client.get(f"http://127.0.0.1:{port}/hello")
                    statuses.append(response.status_code)
                    assert response.headers["ratelimit-policy"] == f'"subject";q={requests};w=3600'
                    if response.status_code == 429:
                        assert response.headers["ratelimit"].startswith('"subject";r=0;t=')
                        assert 1 <= int(response.headers["retry-after"]) <= longest

            async with anyio.create_task_group() as tasks:
                for port in ports * 2:
                    tasks.start_soon(ask, port)
        assert statuses.count(200) == requests
        assert statuses.count(429) == 3 * requests
        async with RedisClient(redis_url) as redis:
            windowed = "window:" if algorithm is LimitAlgorithm.SLIDING_WINDOW else ""
            (key,) = await redis.call("KEYS", "bascule:limit:*")
            assert key.startswith(f"bascule:limit:{windowed}gateway-subject:".encode())
    finally:
        for process in processes:
            process.terminate()
            process.join()
