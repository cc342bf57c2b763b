"""JSON and protobuf beside ``json_format``: ``python -m benches.micro.transcode [--json]``."""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from google.protobuf import json_format
from rich.console import Console
from rich.table import Table
from tests.generated import codec_pb2
from tests.oracle import library

from bascule.gateway import Router, Transcoder, descriptor_set
from benches.report.units import readable

#: Seconds that one sample should take at least: thousands of times what reading the clock does.
SAMPLE = 0.03

#: Seconds that bascule may take for each operation.
TARGETS = {"match": 0.5e-6, "3 fields, to protobuf": 2.5e-6, "3 fields, to JSON": 2.5e-6}

Subjects = dict[str, Callable[[], object]]
Samples = dict[str, dict[str, list[float]]]


def run(rounds: int = 5) -> Samples:
    """Answer with the seconds that each subject took for one operation: case, subject, samples."""
    samples: Samples = {}
    for case, subjects in itertools.chain(_routes(), _documents()):
        samples[case] = {name: [] for name in subjects}
        repeats = {name: _calibrated(subject) for name, subject in subjects.items()}
        # Round by round, so that a busy moment of the machine does not hit one subject alone.
        for _, (name, subject) in itertools.product(range(rounds), subjects.items()):
            samples[case][name].append(_timed(subject, repeats[name]) / repeats[name])
    return samples


def missed(samples: Samples) -> list[str]:
    """Name the targets that were not reached."""
    medians = {case: statistics.median(samples[case]["bascule"]) for case in TARGETS}
    return [
        f"{case}: {readable(medians[case], 's')} instead of {readable(target, 's')}"
        for case, target in TARGETS.items()
        if medians[case] > target
    ]


def show(console: Console, samples: Samples) -> None:
    """Print medians, and how many times longer each takes than bascule."""
    table = Table("case", "subject", "one operation", "ratio", title="transcoding")
    for case, subjects in samples.items():
        medians = {name: statistics.median(each) for name, each in subjects.items()}
        for index, (name, median) in enumerate(medians.items()):
            ratio = f"{median / medians['bascule']:.2f}x"
            table.add_row("" if index else case, name, readable(median, "s"), ratio)
        table.add_section()
    console.print(table)


def _routes() -> Iterator[tuple[str, Subjects]]:
    transcoder = Transcoder(library.descriptor_set())
    router: Router[None] = Router(transcoder)
    body = b'{"id":"7","name":"Poetry"}'
    yield "match", {"bascule": partial(transcoder.match, "GET", "/v1/shelves/7")}
    yield (
        "match, several segments",
        {"bascule": partial(transcoder.match, "GET", "/v1/shelves/7/books/8?a=b")},
    )
    yield "match, with the endpoint", {"bascule": partial(router.match, "GET", "/v1/shelves/7")}
    yield "begin", {"bascule": partial(transcoder.begin, "POST", "/v1/shelves", body)}


def _documents() -> Iterator[tuple[str, Subjects]]:
    transcoder = Transcoder(descriptor_set(codec_pb2.DESCRIPTOR))
    for name, message in _messages():
        full_name = message.DESCRIPTOR.full_name
        wire = message.SerializeToString()
        document = json_format.MessageToJson(message, indent=None).encode()
        read = type(message).FromString(transcoder.from_json(full_name, document))
        printed = transcoder.to_json(full_name, wire)
        if read != message or json.loads(printed) != json.loads(document):
            complaint = f"{name}: bascule and json_format differ"
            raise RuntimeError(complaint)
        to_protobuf: Subjects = {
            "bascule": partial(transcoder.from_json, full_name, document),
            "json_format": partial(_parse, type(message), document),
        }
        to_json: Subjects = {
            "bascule": partial(transcoder.to_json, full_name, wire),
            "json_format": partial(_print, type(message), wire),
        }
        yield f"{name}, to protobuf", to_protobuf
        yield f"{name}, to JSON", to_json


def _messages() -> Iterator[tuple[str, Any]]:
    yield "3 fields", codec_pb2.Small(id=123_456, name="Ada Lovelace", active=True)
    users = [
        codec_pb2.User(
            id=n,
            name=f"User {n}",
            email=f"user{n}@example.com",
            active=n % 3 > 0,
            age=20 + n % 50,
            roles=["buyer", "reviewer"],
            address=codec_pb2.Address(street=f"Main {n}", city="Bern", postal_code="3000"),
        )
        for n in range(100)
    ]
    yield "100 users", codec_pb2.UserList(users=users, next_page_token="100")
    known = codec_pb2.WellKnown(int64_value={"value": 5}, string_value={"value": "x"})
    known.timestamp.FromJsonString("2030-01-31T12:00:00.125Z")
    known.duration.FromJsonString("1.5s")
    known.struct.update({"a": [1, "x", None, {"b": True}]})
    yield "well-known types", known


def _parse(kind: Any, document: bytes) -> bytes:
    data: bytes = json_format.Parse(document, kind()).SerializeToString()
    return data


def _print(kind: Any, wire: bytes) -> bytes:
    return json_format.MessageToJson(kind.FromString(wire), indent=None).encode()


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
