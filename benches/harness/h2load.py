"""The load generator h2load: one run, and what it said."""

import re
from dataclasses import dataclass
from pathlib import Path

from benches.harness import process
from benches.peers import require

_SPARE_SECONDS = 20.0


@dataclass(frozen=True)
class Outcome:
    """What a run counted."""

    succeeded: int
    data_bytes: int  #: bodies received, frame headers not counted
    seconds: float
    command: str

    @property
    def per_second(self) -> float:
        """Requests answered a second."""
        return self.succeeded / self.seconds


@dataclass(frozen=True)
class Shape:
    """How many connections, and how many requests in flight on each."""

    connections: int
    streams: int

    def __str__(self) -> str:
        return f"-c{self.connections} -m{self.streams}"

    @property
    def in_flight(self) -> int:
        """Requests in flight altogether."""
        return self.connections * self.streams


@dataclass(frozen=True)
class Request:
    """What is sent, over and over."""

    url: str
    headers: tuple[str, ...] = ()
    body: Path | None = None


def load(request: Request, shape: Shape, seconds: float, core: int | None) -> Outcome:
    """Send requests for so many seconds.

    :raises MissingToolError: if h2load is not installed
    :raises RuntimeError: if a request failed, or h2load could not be understood
    """
    h2load = require("h2load", "`apt-get install nghttp2-client` or `brew install nghttp2`")
    command = [h2load, "-t1", f"-c{shape.connections}", f"-m{shape.streams}"]
    command.append(f"-D{round(seconds * 1000)}ms")
    if request.body is not None:
        command += ["-d", str(request.body)]
    for header in request.headers:
        command += ["-H", header]
    command.append(request.url)
    text, readable = process.run(command, core, seconds + _SPARE_SECONDS)
    return _parse(text, seconds, readable)


def _parse(text: str, seconds: float, command: str) -> Outcome:
    requests = re.search(
        r"requests: .*? (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text
    )
    status = re.search(r"status codes: (\d+) 2xx", text)
    traffic = re.search(r"traffic: .*\((\d+)\) data", text)
    if requests is None or status is None or traffic is None:
        message = f"h2load's output was not understood:\n{text}"
        raise RuntimeError(message)
    succeeded, *bad = map(int, requests.groups())
    if not succeeded or any(bad):
        message = f"{command}: {succeeded} requests succeeded, {sum(bad)} did not:\n{text}"
        raise RuntimeError(message)
    return Outcome(succeeded, int(traffic[1]), seconds, command)
