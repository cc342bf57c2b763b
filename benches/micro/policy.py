"""Limiter, breaker and pick, beside their peers: ``python -m benches.micro.policy [--json]``."""

import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping

import aiolimiter
import limits
import limits.storage
import limits.strategies
import purgatory
import pybreaker
from rich.console import Console
from rich.table import Table

from bascule import _core
from bascule.resilience import (
    BreakerSettings,
    CircuitBreaker,
    GcraLimiter,
    RateLimiter,
    SlidingWindowLimiter,
    TokenBucketLimiter,
)
from benches.report.units import readable

#: Never met, so that what is measured is the path that calls take.
RATE = 1_000_000_000

#: Seconds that one sample should take at least: thousands of times what reading the clock does.
SAMPLE = 0.03

ENDPOINTS = 10
KEYS = 10_000

#: Does something so many times; either kind of function, so that nobody pays for the other's.
Sync = Callable[[int], None]
Async = Callable[[int], Awaitable[None]]
Samples = dict[str, dict[str, list[float]]]


def run(rounds: int = 5) -> Samples:
    """Answer with the seconds that each subject took for one operation: case, subject, samples."""
    samples: Samples = {}
    for case, subjects in _cases().items():
        samples[case] = {name: [] for name in subjects}
        repeats = {name: _calibrated(subject) for name, subject in subjects.items()}
        # Round by round, so that a busy moment of the machine does not hit one subject alone.
        for _, (name, subject) in itertools.product(range(rounds), subjects.items()):
            samples[case][name].append(_timed(subject, repeats[name]) / repeats[name])
    return samples


def show(console: Console, samples: Samples) -> None:
    """Print medians, and how many times longer each takes than the first of its case."""
    table = Table("case", "subject", "one operation", "ratio", title="policies")
    for case, subjects in samples.items():
        medians = {name: statistics.median(each) for name, each in subjects.items()}
        first, base = next(iter(medians.items()))
        for name, median in medians.items():
            label = case if name == first else ""
            table.add_row(label, name, readable(median, "s"), f"{median / base:.1f}x")
        table.add_section()
    console.print(table)


def _cases() -> Mapping[str, Mapping[str, Sync | Async]]:
    return {
        "limiter check, one key": {
            "bascule GCRA": _bascule_check(GcraLimiter(RATE)),
            "bascule token bucket": _bascule_check(TokenBucketLimiter(RATE)),
            "bascule sliding window": _bascule_check(SlidingWindowLimiter(RATE)),
            "limits fixed window": _limits_hit(limits.strategies.FixedWindowRateLimiter),
            "limits sliding window": _limits_hit(limits.strategies.SlidingWindowCounterRateLimiter),
        },
        f"limiter check, {KEYS:,} keys": {
            "bascule GCRA": _bascule_check(GcraLimiter(RATE), KEYS),
            "bascule sliding window": _bascule_check(SlidingWindowLimiter(RATE), KEYS),
            "limits fixed window": _limits_hit(limits.strategies.FixedWindowRateLimiter, KEYS),
        },
        "limiter acquire, asyncio": {
            "bascule GCRA": _bascule_acquire,
            "aiolimiter": _aiolimiter_acquire,
        },
        "breaker, success": {
            "bascule async with": _bascule_breaker,
            "bascule decorator": _bascule_decorated,
            "purgatory async with": _purgatory,
            "purgatory decorator": _purgatory_decorated,
            "pybreaker with": _pybreaker,
        },
        f"breaker and pick of {ENDPOINTS}": {
            "bascule round robin": _bascule_pick("round_robin"),
            "bascule least request": _bascule_pick("least_request"),
            "bascule peak EWMA": _bascule_pick("peak_ewma"),
            "bascule ring hash": _bascule_pick("ring_hash"),
            "bascule Maglev": _bascule_pick("maglev"),
            "purgatory, itertools.cycle": _purgatory_pick,
        },
        "limit, breaker and pick": {
            "bascule": _bascule_pick("round_robin", limited=True),
            "limits, purgatory, cycle": _peers_together,
        },
    }


def _bascule_check(limiter: RateLimiter, keys: int = 1) -> Sync:
    key = itertools.cycle([f"10.0.{n >> 8}.{n & 255}" for n in range(keys)]).__next__

    def subject(repeat: int) -> None:
        for _ in range(repeat):
            limiter.check(key())

    return subject


def _limits_hit(strategy: type[limits.strategies.RateLimiter], keys: int = 1) -> Sync:
    limiter = strategy(limits.storage.MemoryStorage())
    item = limits.RateLimitItemPerSecond(RATE)
    key = itertools.cycle([f"10.0.{n >> 8}.{n & 255}" for n in range(keys)]).__next__

    def subject(repeat: int) -> None:
        for _ in range(repeat):
            limiter.hit(item, key())

    return subject


async def _bascule_acquire(repeat: int) -> None:
    limiter = GcraLimiter(RATE)
    for _ in range(repeat):
        await limiter.acquire("key")


async def _aiolimiter_acquire(repeat: int) -> None:
    limiter = aiolimiter.AsyncLimiter(RATE, 1)
    for _ in range(repeat):
        await limiter.acquire()


async def _bascule_breaker(repeat: int) -> None:
    breaker = CircuitBreaker("bench")
    for _ in range(repeat):
        async with breaker:
            pass


async def _bascule_decorated(repeat: int) -> None:
    guarded = CircuitBreaker("bench")(_nothing)
    for _ in range(repeat):
        await guarded()


async def _purgatory(repeat: int) -> None:
    breaker = await purgatory.AsyncCircuitBreakerFactory().get_breaker("bench")
    for _ in range(repeat):
        async with breaker:
            pass


async def _purgatory_decorated(repeat: int) -> None:
    guarded = purgatory.AsyncCircuitBreakerFactory()("bench")(_nothing)
    for _ in range(repeat):
        await guarded()


def _pybreaker(repeat: int) -> None:
    breaker = pybreaker.CircuitBreaker()
    for _ in range(repeat):
        with breaker.calling():
            pass


def _bascule_pick(balancer: str, *, limited: bool = False) -> Sync:
    settings = BreakerSettings()
    policy = _core.CallPolicy(
        balancer=balancer,
        seed=1,
        breaker=(
            settings.failure_threshold,
            settings.success_threshold,
            settings.timeout_ns,
            1,
        ),
        limit=(RATE, 1_000_000_000, RATE, KEYS) if limited else None,
    )
    for endpoint in policy.update([(f"10.0.0.{n}:443", 1) for n in range(ENDPOINTS)], 0):
        policy.set_ready(endpoint, ready=True)

    def subject(repeat: int) -> None:
        now = time.monotonic_ns
        for _ in range(repeat):
            _, endpoint, permit, _ = policy.admit(now(), None, "key")
            policy.complete(endpoint, permit, 0, now())

    return subject


async def _purgatory_pick(repeat: int) -> None:
    factory = purgatory.AsyncCircuitBreakerFactory()
    breakers = [await factory.get_breaker(f"10.0.0.{n}:443") for n in range(ENDPOINTS)]
    pick = itertools.cycle(breakers).__next__
    for _ in range(repeat):
        async with pick():
            pass


async def _peers_together(repeat: int) -> None:
    factory = purgatory.AsyncCircuitBreakerFactory()
    breakers = [await factory.get_breaker(f"10.0.0.{n}:443") for n in range(ENDPOINTS)]
    pick = itertools.cycle(breakers).__next__
    limiter = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
    item = limits.RateLimitItemPerSecond(RATE)
    for _ in range(repeat):
        if limiter.hit(item, "key"):
            async with pick():
                pass


async def _nothing() -> None:
    pass


def _calibrated(subject: Sync | Async) -> int:
    repeat = 100
    while (seconds := _timed(subject, repeat)) < SAMPLE:
        repeat = max(repeat * 2, round(repeat * SAMPLE / seconds))
    return repeat


def _timed(subject: Sync | Async, repeat: int) -> float:
    async def measure() -> float:
        # The process's own time, so that a busy machine does not count.
        begin = time.process_time()
        pending = subject(repeat)
        if pending is not None:
            await pending
        return time.process_time() - begin

    return asyncio.run(measure())


if __name__ == "__main__":
    measured = run()
    if "--json" in sys.argv[1:]:
        print(json.dumps({"unit": "s", "samples": measured}, indent=1))
    else:
        show(Console(), measured)
