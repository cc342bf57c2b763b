"""Deterministic subsetting from gRFC A68, and the published generator that shuffles for it."""

from __future__ import annotations

from collections.abc import Iterator


def splitmix64(state: int) -> Iterator[int]:
    """The sequence of Vigna's ``splitmix64.c``."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        yield z ^ z >> 31


def subset(keys: list[str], client: int, size: int) -> set[str]:
    """The keys that a client connects to."""
    if len(keys) <= size:
        return set(keys)
    ordered = sorted(keys)
    subsets = len(ordered) // size
    round_, turn = divmod(client, subsets)
    over = len(ordered) % size
    # Every round leaves the next ones over.
    out = {(round_ * over + offset) % len(ordered) for offset in range(over)}
    dealt = [key for place, key in enumerate(ordered) if place not in out]
    numbers = splitmix64(round_)
    for last in range(len(dealt) - 1, 0, -1):
        other = next(numbers) * (last + 1) >> 64
        dealt[last], dealt[other] = dealt[other], dealt[last]
    return set(dealt[turn * size : (turn + 1) * size])
