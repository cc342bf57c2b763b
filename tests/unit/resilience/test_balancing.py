"""What balancers share with the world: hashes, subsets, snapshots, and settings that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.models import hashing
from tests.models.subset import subset

from bascule import _core
from bascule.resilience import BreakerState, endpoint_snapshots, hash_key

BALANCERS = [
    "round_robin",
    "weighted_round_robin",
    "random",
    "least_request",
    "peak_ewma",
    "ring_hash",
    "maglev",
]


def make(balancer: str = "round_robin", **settings: Any) -> _core.CallPolicy:
    return _core.CallPolicy(balancer=balancer, seed=1, breaker=None, **settings)


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_xxh64_is_the_specification(data: bytes, seed: int) -> None:
    assert _core.xxh64(data, seed) == hashing.xxh64(data, seed)


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"", 0xEF46DB3751D8E999), (b"a", 0xD24EC4F1A98C6E5B), (b"abc", 0x44BC2CF5AD770999)],
)
def test_xxh64_is_what_others_publish(data: bytes, value: int) -> None:
    assert _core.xxh64(data) == hashing.xxh64(data) == value
    assert hash_key(data) == hash_key(data.decode()) == value


@given(
    st.lists(st.text("abcdef", min_size=1), unique=True, max_size=30),
    st.integers(0, 2**63),
    st.integers(1, 12),
)
@example(list("abcdefghij"), 7, 3)
def test_subsets_are_those_of_the_model(keys: list[str], client: int, size: int) -> None:
    places = _core.subset(keys, client, size)
    assert places == sorted(places)
    assert {keys[place] for place in places} == subset(keys, client, size)


weights = st.dictionaries(st.text("abcdef.:", min_size=1), st.integers(0, 50), max_size=12)


@given(weights, st.integers(1, 200), st.integers(0, 200), st.integers(0, 2**64 - 1))
def test_rings_are_those_of_the_model(
    weights: dict[str, int], least: int, more: int, number: int
) -> None:
    policy = make("ring_hash", ring_size=(least, least + more))
    points = hashing.ring(weights, least, least + more)
    usable = {key for _, key in points}
    for endpoint, key in zip(policy.update(list(weights.items()), 0), weights, strict=True):
        policy.set_ready(endpoint, ready=key in usable)
    if not usable:
        return
    names = dict(enumerate(weights))
    # On a point, and on either side of it.
    point = points[number % len(points)][0]
    for hash_ in (number, point, (point + 1) % 2**64, (point - 1) % 2**64, 0, 2**64 - 1):
        _, endpoint, _, _ = policy.admit(0, hash_)
        assert names[endpoint] == hashing.on_ring(points, usable, hash_)


@given(weights, st.sampled_from([2, 3, 13, 101, 211]))
def test_tables_are_those_of_the_model(weights: dict[str, int], size: int) -> None:
    policy = make("maglev", table_size=size)
    table = hashing.maglev(weights, size)
    usable = set(table)
    for endpoint, key in zip(policy.update(list(weights.items()), 0), weights, strict=True):
        policy.set_ready(endpoint, ready=key in usable)
    names = list(weights)
    for entry, key in enumerate(table):
        _, endpoint, _, _ = policy.admit(0, entry)
        assert names[endpoint] == key


def test_a_snapshot_has_names() -> None:
    policy = make(
        latency_decay_ns=10**9,
        outlier=(100, 250, 250, 100, None, (50, 100, 1, 1)),
    )
    (endpoint,) = policy.update([("a:1", 3)], 0)
    policy.set_ready(endpoint, ready=True)
    for outcome in (0, 1, 1):
        _, _, permit, _ = policy.admit(0)
        policy.complete(endpoint, permit, outcome, 0)
    _, _, permit, _ = policy.admit(0)
    policy.complete(endpoint, permit, 2, 100)
    policy.admit(300)
    (seen,) = endpoint_snapshots(policy)
    assert seen._asdict() == {
        "address": "a:1",
        "weight": 3,
        "ready": True,
        "in_flight": 1,
        "breaker": BreakerState.CLOSED,
        "picks": 5,
        "successes": 1,
        "failures": 2,
        "latency": 0.0,
        "ejected_until": 350e-9,
        "counts": None,
        "concurrency": None,
    }


def test_what_is_not_known_is_none() -> None:
    policy = make()
    policy.update([("a:1", 1)], 0)
    (seen,) = endpoint_snapshots(policy)
    assert (seen.latency, seen.ejected_until) == (None, None)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_every_balancer_picks(balancer: str) -> None:
    policy = make(balancer)
    assert policy.admit(0)[0] == 3
    (endpoint,) = policy.update([("a:1", 1)], 0)
    policy.set_ready(endpoint, ready=True)
    assert policy.admit(0)[:2] == (0, endpoint)
    assert policy.admit(0, 2**64 - 1)[:2] == (0, endpoint)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"balancer": "fastest"}, "balancer is .*fastest.* must be one of .*'round_robin'"),
        ({"ring_size": (2, 1)}, "ring_size"),
        ({"table_size": 10}, "table_size must be a prime"),
        ({"slow_start": (0, 1.0, 0.1)}, "slow_start"),
        ({"slow_start": (9, 0.0, 0.1)}, "aggression"),
        ({"slow_start": (9, 1.0, 0.1), "balancer": "ring_hash"}, "ring_hash keeps together"),
        ({"slow_start": (9, 1.0, 0.1), "balancer": "maglev"}, "maglev keeps together"),
        ({"outlier": (0, 1, 1, 10, None, None)}, "interval"),
        ({"outlier": (9, 1, 1, 101, None, None)}, "percentages"),
        ({"outlier": (9, 1, 1, 10, (1_000_001, 1, 1, 1), None)}, "stdev_factor"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make(**settings)


def test_a_hash_has_64_bits() -> None:
    with pytest.raises(OverflowError):
        make().admit(0, 2**64)
