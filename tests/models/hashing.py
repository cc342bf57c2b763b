"""XXH64 and the balancers that hash, from their papers and as plainly as can be."""

from __future__ import annotations

import math
from fractions import Fraction

_MASK = 2**64 - 1
_P1, _P2, _P3 = 11400714785074694791, 14029467366897019727, 1609587929392839161
_P4, _P5 = 9650029242287828579, 2870177450012600261


def xxh64(data: bytes, seed: int = 0) -> int:
    """The XXH64 section of xxHash's specification, step by step."""
    lanes = [seed + _P1 + _P2, seed + _P2, seed, seed - _P1]
    at = 0
    while len(data) - at >= 32:
        for index in range(4):
            lanes[index] = _round(lanes[index], _number(data, at + 8 * index, 8))
        at += 32
    if at:
        value = sum(_rotated(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True))
        for lane in lanes:
            value = (((value & _MASK) ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        value = seed + _P5
    value = (value + len(data)) & _MASK
    while len(data) - at >= 8:
        value = _rotated(value ^ _round(0, _number(data, at, 8)), 27) * _P1 + _P4
        value, at = value & _MASK, at + 8
    if len(data) - at >= 4:
        value = _rotated(value ^ (_number(data, at, 4) * _P1 & _MASK), 23) * _P2 + _P3
        value, at = value & _MASK, at + 4
    for byte in data[at:]:
        value = _rotated(value ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    value = (value ^ value >> 33) * _P2 & _MASK
    value = (value ^ value >> 29) * _P3 & _MASK
    return value ^ value >> 32


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _rotated(value: int, by: int) -> int:
    value &= _MASK
    return (value << by | value >> (64 - by)) & _MASK


def _round(lane: int, number: int) -> int:
    return _rotated(lane + number * _P2, 31) * _P1 & _MASK


def ring(weights: dict[str, int], least: int, most: int) -> list[tuple[int, str]]:
    """The ring of gRFC A42: hash and key of each point, by hash."""
    weighted = {key: weight for key, weight in sorted(weights.items()) if weight}
    if not weighted:
        return []
    total = sum(weighted.values())
    shares = {key: Fraction(weight, total) for key, weight in weighted.items()}
    lightest = min(shares.values())
    scale = min(math.ceil(lightest * least) / lightest, Fraction(most))
    points: list[tuple[int, str]] = []
    target = Fraction(0)
    for key, share in shares.items():
        target += scale * share
        number = 0
        while len(points) < target:
            points.append((xxh64(f"{key}_{number}".encode()), key))
            number += 1
    return sorted(points)


def on_ring(points: list[tuple[int, str]], usable: set[str], hash_: int) -> str:
    """The key of the first point from a hash on that is usable."""
    usable_points = [point for point in points if point[1] in usable]
    return next((key for point, key in usable_points if point >= hash_), usable_points[0][1])


def maglev(weights: dict[str, int], size: int) -> list[str]:
    """The table of the Maglev paper (section 3.4), with turns by weight."""
    weighted = {key: weight for key, weight in sorted(weights.items()) if weight}
    if not weighted:
        return []
    heaviest = max(weighted.values())
    wishes: dict[str, list[int]] = {}
    for key in weighted:
        offset = xxh64(key.encode()) % size
        skip = xxh64(key.encode(), 1) % max(size - 1, 1) + 1
        wishes[key] = [(offset + turn * skip) % size for turn in range(size)]
    table: dict[int, str] = {}
    had = dict.fromkeys(weighted, 0)
    turn = 0
    while True:
        turn += 1
        for key, weight in weighted.items():
            # One that weighs half as much as the heaviest waits for every other turn.
            if Fraction(turn * weight, heaviest) < had[key]:
                continue
            had[key] += 1
            table[next(entry for entry in wishes[key] if entry not in table)] = key
            if len(table) == size:
                return [table[entry] for entry in range(size)]


def in_table(table: list[str], usable: set[str], hash_: int) -> str:
    """The key of the first entry from a hash on that is usable."""
    first = hash_ % len(table)
    return next(key for key in [*table[first:], *table[:first]] if key in usable)
