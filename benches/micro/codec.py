"""The codec beside betterproto2's own and google's: ``python -m benches.micro.codec [--json]``."""

import datetime
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import betterproto2
from rich.console import Console
from rich.table import Table
from tests.generated import codec_pb2
from tests.generated.codec import codec as messages

from bascule.rpc._codec import codec_for
from benches.report.units import readable

#: Seconds that one sample should take at least: thousands of times what reading the clock does.
SAMPLE = 0.03

#: How many times faster than betterproto2 each operation of a case must be.
TARGETS = {"3 fields": 15.0, "100 users": 30.0}

Subjects = dict[str, Callable[[], object]]
Samples = dict[str, dict[str, list[float]]]


class Case(NamedTuple):
    """A message of both kinds, and what a handler might read of it."""

    name: str
    better: betterproto2.Message
    google: Any
    read: Callable[[Any], object] | None = None


def run(rounds: int = 5) -> Samples:
    """Answer with the seconds that each subject took for one operation: case, subject, samples."""
    samples: Samples = {}
    for case, subjects in _cases():
        samples[case] = {name: [] for name in subjects}
        repeats = {name: _calibrated(subject) for name, subject in subjects.items()}
        # Round by round, so that a busy moment of the machine does not hit one subject alone.
        for _, (name, subject) in itertools.product(range(rounds), subjects.items()):
            samples[case][name].append(_timed(subject, repeats[name]) / repeats[name])
    return samples


def speedups(samples: Samples) -> dict[str, float]:
    """Answer with how many times faster than betterproto2 bascule is in each case."""
    return {
        case: statistics.median(subjects["betterproto2"]) / statistics.median(subjects["bascule"])
        for case, subjects in samples.items()
    }


def missed(samples: Samples) -> list[str]:
    """Name the targets that were not reached."""
    return [
        f"{case}: {speedup:.1f}x instead of {target:.0f}x"
        for case, speedup in speedups(samples).items()
        for name, target in TARGETS.items()
        if case.startswith(f"{name},") and speedup < target
    ]


def show(console: Console, samples: Samples) -> None:
    """Print medians, and how many times longer each takes than bascule."""
    table = Table("case", "subject", "one operation", "ratio", title="codec")
    for case, subjects in samples.items():
        medians = {name: statistics.median(each) for name, each in subjects.items()}
        for index, (name, median) in enumerate(medians.items()):
            ratio = f"{median / medians['bascule']:.2f}x"
            table.add_row("" if index else case, name, readable(median, "s"), ratio)
        table.add_section()
    console.print(table)


def _cases() -> Iterator[tuple[str, Subjects]]:
    for name, better, google, read in _messages():
        codec, data = codec_for(type(better)), bytes(better)
        if codec.encode(better) != data or codec.decode(data) != better:
            message = f"{name}: bascule and betterproto2 differ"
            raise RuntimeError(message)
        encoders: Subjects = {
            "bascule": partial(codec.encode, better),
            "betterproto2": partial(bytes, better),
            "google (upb)": google.SerializeToString,
        }
        decoders: Subjects = {
            "bascule": partial(codec.decode, data),
            "betterproto2": partial(type(better).parse, data),
            "google (upb)": partial(type(google).FromString, data),
        }
        yield f"{name}, encode", encoders
        yield f"{name}, decode", decoders
        if read is not None:
            # google makes Python objects of the fields only when they are read.
            readers: Subjects = {
                kind: partial(_read, read, decode) for kind, decode in decoders.items()
            }
            yield f"{name}, decode and read", readers


def _messages() -> Iterator[Case]:
    small = messages.Small(id=123_456, name="Ada Lovelace", active=True)
    yield Case("3 fields", small, codec_pb2.Small.FromString(bytes(small)), _read_small)
    users = messages.UserList(users=[_user(n) for n in range(100)], next_page_token="100")
    yield Case("100 users", users, codec_pb2.UserList.FromString(bytes(users)), _read_users)
    begin = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    times = messages.WellKnown(
        timestamps=[begin + datetime.timedelta(hours=n, microseconds=n) for n in range(100)],
        durations=[datetime.timedelta(minutes=n, microseconds=n) for n in range(100)],
    )
    yield Case("200 times", times, codec_pb2.WellKnown.FromString(bytes(times)))
    numbers = messages.Repeateds(
        a_int64=[n * n for n in range(1_000)], a_double=[n / 7 for n in range(1_000)]
    )
    yield Case("2,000 numbers", numbers, codec_pb2.Repeateds.FromString(bytes(numbers)))


def _user(number: int) -> messages.User:
    return messages.User(
        id=number,
        name=f"User {number}",
        email=f"user{number}@example.com",
        active=number % 3 > 0,
        age=20 + number % 50,
        roles=["buyer", "reviewer"],
        address=messages.Address(street=f"Main Street {number}", city="Bern", postal_code="3000"),
    )


def _read(read: Callable[[Any], object], decode: Callable[[], object]) -> object:
    return read(decode())


def _read_small(message: Any) -> object:
    return message.id, message.name, message.active


def _read_users(message: Any) -> object:
    return [(user.id, user.name, user.email, user.address.city) for user in message.users]


def _calibrated(subject: Callable[[], object]) -> int:
    repeat = 1
    while (seconds := _timed(subject, repeat)) < SAMPLE:
        repeat = max(repeat * 2, round(repeat * SAMPLE / max(seconds, 1e-6)))
    return repeat


def _timed(subject: Callable[[], object], repeat: int) -> float:
    # The process's own time, so that a busy machine does not count.
    begin = time.process_time()
    for _ in range(repeat):
        subject()
    return time.process_time() - begin


if __name__ == "__main__":
    measured = run()
    if "--json" in sys.argv[1:]:
        print(json.dumps({"unit": "s", "samples": measured, "missed": missed(measured)}, indent=1))
    else:
        show(Console(), measured)
        for miss in missed(measured):
            print(miss)
