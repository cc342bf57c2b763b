"""Answers to scrapes: in the format that is asked for, without blocking the event loop for long.

Sources: "OpenMetrics 1.0", and Prometheus' "Exposition formats".
"""

from __future__ import annotations

import gzip
from contextlib import aclosing
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

import anyio
import anyio.lowlevel
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.metrics_core import Metric

    from bascule.observe._metrics import Metrics

__all__ = ["Exposition", "Scrape"]

#: Seconds of work between two turns of the event loop.
TURN = 0.002

#: Samples that are written at once: about a millisecond's work.
CHUNK = 200

#: Scrapes that may wait for their turn; more are sent away.
MOST_WAITING = 8

#: Bytes from which compressing is left to a thread: it takes about a millisecond.
LARGE = 64 * 1024

#: Bytes from which it is worth while.
SMALL = 1024

OPEN_METRICS = "application/openmetrics-text"

#: Ends of samples' names that belong to a family, for filters by ``name[]``.
_SUFFIXES = ("_total", "_bucket", "_sum", "_count")


class Scrape(NamedTuple):
    """What a scraper is answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Exposition:
    """Answers scrapes of some metrics, one after the other.

    Use it in the event loop of what serves it.

    :param metrics: what to show
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._turn = anyio.Lock()
        self._waiting = 0

    async def answer(self, query: str, headers: Iterable[tuple[str, str]]) -> Scrape:
        """Answer a GET request.

        The format is OpenMetrics, with exemplars, if ``Accept`` prefers it, else the classic text;
        compressed if ``Accept-Encoding`` allows gzip. ``name[]`` in the query, which may be
        repeated, asks for these families only.

        :param query: of the target, without ``?``
        :returns: status 503 if too many others wait
        """
        if self._waiting >= MOST_WAITING:
            return Scrape(503, [("retry-after", "1")], b"too many scrapes at once\n")
        known = {name: value for name, value in headers if name.startswith("accept")}
        is_open = prefers_open_metrics(known.get("accept", ""))
        names = [value for name, value in parse_qsl(query) if name == "name[]"]
        self._waiting += 1
        try:
            async with self._turn:
                body = await self._write(is_open, names)
        finally:
            self._waiting -= 1
        answer = [("content-type", _content_type(is_open)), ("vary", "accept, accept-encoding")]
        if len(body) >= SMALL and _quality(known.get("accept-encoding", ""), "gzip") > 0:
            answer.append(("content-encoding", "gzip"))
            body = await _compressed(body)
        return Scrape(200, answer, body)

    async def _write(self, is_open: bool, names: Sequence[str]) -> bytes:
        breath = _Breath()
        parts: list[bytes] = []
        last = None
        async with aclosing(self._metrics.gather(breath.take, _filter(names))) as families:
            async for metric in families:
                for piece in _pieces(metric):
                    parts.append(_text(piece, is_open, is_first=piece.name != last))
                    last = piece.name
                    await breath.take()
        if is_open:
            parts.append(b"# EOF\n")
        return b"".join(parts)


class _Breath:
    """Lets the loop turn whenever work has gone on for long enough."""

    def __init__(self) -> None:
        self._since = perf_counter()

    async def take(self) -> None:
        if perf_counter() - self._since > TURN:
            await anyio.lowlevel.checkpoint()
            self._since = perf_counter()


def prefers_open_metrics(accept: str) -> bool:
    """Whether a header ``Accept`` (RFC 9110, 12.5.1) asks for OpenMetrics 1 more than for other text."""
    best_open = best_text = 0.0
    for each in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        given = dict(part.partition("=")[::2] for part in parameters)
        quality = _number(given.get("q", "1"))
        if kind == OPEN_METRICS and given.get("version", "1.0.0") in {"0.0.1", "1.0.0"}:
            best_open = max(best_open, quality)
        elif kind in {"text/plain", "text/*"}:
            best_text = max(best_text, quality)
    return best_open > 0 and best_open >= best_text


def _quality(header: str, wanted: str) -> float:
    """How much a header of the kind of ``Accept-Encoding`` wants something."""
    for each in header.lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        if kind == wanted:
            given = dict(part.partition("=")[::2] for part in parameters)
            return _number(given.get("q", "1"))
    return 0.0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _content_type(is_open: bool) -> str:
    if is_open:
        return f"{OPEN_METRICS}; version=1.0.0; charset=utf-8"
    return "text/plain; version=0.0.4; charset=utf-8"


def _filter(names: Sequence[str]) -> Callable[[str], bool]:
    if not names:
        return lambda _: True
    wanted = set(names)
    return lambda name: name in wanted or any(name + each in wanted for each in _SUFFIXES)


def _pieces(metric: Metric) -> Iterable[Metric]:
    """Cut a large family; what begins with it has its heading."""
    from prometheus_client.metrics_core import Metric

    samples = metric.samples
    if len(samples) <= CHUNK or any(each.name.endswith("_created") for each in samples):
        yield metric
        return
    rest = samples[CHUNK:]
    metric.samples = samples[:CHUNK]
    yield metric
    for at in range(0, len(rest), CHUNK):
        piece = Metric(metric.name, metric.documentation, metric.type)
        piece.samples = rest[at : at + CHUNK]
        yield piece


class _Single:
    """A registry with one family, as prometheus-client's writers want it."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


def _text(metric: Metric, is_open: bool, is_first: bool) -> bytes:
    from prometheus_client import exposition
    from prometheus_client.openmetrics import exposition as openmetrics

    write = openmetrics.generate_latest if is_open else exposition.generate_latest
    text: bytes = write(_Single(metric)).removesuffix(b"# EOF\n")
    while not is_first and text.startswith(b"#"):
        text = text.partition(b"\n")[2]
    return text


async def _compressed(body: bytes) -> bytes:
    if len(body) < LARGE:
        return gzip.compress(body, 5, mtime=0)
    return await anyio.to_thread.run_sync(lambda: gzip.compress(body, 5, mtime=0))
