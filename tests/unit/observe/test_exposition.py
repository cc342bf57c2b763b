"""Answers to scrapes, read back by prometheus-client's own parsers of both formats."""

from __future__ import annotations

import gzip
from time import process_time
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from prometheus_client import Counter
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from bascule.observe import Exposition, Metrics, Sample
from bascule.observe._exposition import MOST_WAITING, prefers_open_metrics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OPEN = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")]


class Calls:
    """Methods of a server, as many as wanted."""

    def __init__(self, methods: int = 2) -> None:
        self._methods = range(methods)

    def snapshot(self) -> list[tuple[str, str, list[tuple[str, int]], list[int], float]]:
        buckets = [1, 2] + [0] * 13
        return [("a.B", f"M{n}", [("OK", 2), ("ABORTED", 1)], buckets, 0.1) for n in self._methods]

    def in_progress(self) -> list[tuple[str, str, int]]:
        return [("a.B", f"M{n}", n) for n in self._methods]

    def exemplars(self) -> list[tuple[str, str, int, str, float, float]]:
        return [("a.B", "M1", 1, TRACE, 0.0007, 1_700_000_000.1234)]


def made(methods: int = 2) -> Metrics:
    metrics = Metrics()
    metrics.add_calls(Calls(methods))
    metrics.add_breakers(lambda: [('a"b\\c\nd', "open")])
    metrics.add_samples(lambda: [Sample("own_total", "Of the program", 3, kind="counter")])
    metrics.add_samples(lambda: [Sample.declared("app_ready", True)])
    metrics.add_process()
    Counter("registered", "By the program itself", registry=metrics.registry).inc()
    return metrics


def read(families: list[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for sample in (sample for family in families for sample in family.samples):
        if not sample.name.startswith(("process_", "python_")) and "_created" not in sample.name:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "the same series twice is no exposition"
            found[key] = sample.value
    return found


async def test_both_formats_say_the_same() -> None:
    exposition = Exposition(made())
    status, headers, classic = await exposition.answer("", [])
    assert (status, dict(headers)["content-type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    _, headers, opened = await exposition.answer("", OPEN)
    assert dict(headers)["content-type"].startswith("application/openmetrics-text; version=1.0.0;")
    found = read(list(openmetrics.text_string_to_metric_families(opened.decode())))
    assert found == read(list(text_string_to_metric_families(classic.decode())))
    for name in ("grpc_requests_total", "own_total", "app_ready", "registered_total"):
        assert any(name == sample for sample, _ in found), name
    assert found["circuit_breaker_state", (("name", 'a"b\\c\nd'),)] == 1


async def test_exemplars_are_on_the_buckets_of_open_metrics_only() -> None:
    exposition = Exposition(made())
    _, _, opened = await exposition.answer("", OPEN)
    kept = [
        (sample.labels["method"], sample.labels["le"], sample.exemplar)
        for family in openmetrics.text_string_to_metric_families(opened.decode())
        for sample in family.samples
        if sample.exemplar is not None
    ]
    ((method, bound, exemplar),) = kept
    assert (method, bound) == ("M1", "0.001")
    assert exemplar.labels == {"trace_id": TRACE}
    assert (exemplar.value, float(exemplar.timestamp)) == (0.0007, 1_700_000_000.123)
    _, _, classic = await exposition.answer("", [])
    assert TRACE.encode() not in classic


@pytest.mark.parametrize("accept", [[], OPEN])
async def test_a_large_family_is_one_family(accept: list[tuple[str, str]]) -> None:
    """It is written in pieces: its heading may come only once."""
    _, _, body = await Exposition(made(methods=400)).answer("", accept)
    text = body.decode()
    assert text.count("# TYPE grpc_request_duration_seconds histogram") == 1
    parse = openmetrics.text_string_to_metric_families if accept else text_string_to_metric_families
    found = read(list(parse(text)))
    assert sum(name == "grpc_request_duration_seconds_bucket" for name, _ in found) == 400 * 15
    assert text.endswith("# EOF\n") == bool(accept)


async def test_a_large_scrape_lets_others_have_their_turns() -> None:
    """Measured in this process's own time: a busy machine makes no difference."""
    exposition = Exposition(made(methods=600))
    await exposition.answer("", [])
    gaps = []

    async def measure() -> None:
        last = process_time()
        while True:
            await anyio.lowlevel.checkpoint()
            now = process_time()
            gaps.append(now - last)
            last = now

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(measure)
        begun = process_time()
        await exposition.answer("", [])
        took = process_time() - begun
        tasks.cancel_scope.cancel()
    assert len(gaps) > 10
    assert max(gaps) < took / 3


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip;q=0.5", "GZIP"])
async def test_who_accepts_gzip_gets_it(accepted: str) -> None:
    exposition = Exposition(made(methods=300))
    _, headers, body = await exposition.answer("", [("accept-encoding", accepted)])
    assert dict(headers)["content-encoding"] == "gzip"
    _, plain_headers, plain = await exposition.answer("", [("accept-encoding", "gzip;q=0, br")])
    assert "content-encoding" not in dict(plain_headers)
    assert gzip.decompress(body).count(b"\n") == plain.count(b"\n")
    assert len(body) < len(plain) / 5


async def test_a_filter_by_name_takes_families_and_their_samples() -> None:
    exposition = Exposition(made())
    query = "name[]=grpc_requests_total&name%5B%5D=grpc_request_duration_seconds_count&x=1"
    _, _, body = await exposition.answer(query, [])
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert names == {"grpc_requests", "grpc_request_duration_seconds"}
    _, _, nothing = await exposition.answer("name[]=unknown", [])
    assert nothing == b""


async def test_too_many_scrapes_at_once_are_sent_away() -> None:
    exposition = Exposition(made(methods=300))
    statuses = []

    async def scrape() -> None:
        statuses.append((await exposition.answer("", [])).status)

    async with anyio.create_task_group() as tasks:
        for _ in range(3 * MOST_WAITING):
            tasks.start_soon(scrape)
    assert statuses.count(200) >= MOST_WAITING
    assert set(statuses) == {200, 503}
    assert (await exposition.answer("", [])).status == 200


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=0.0.1", True),
        ("application/openmetrics-text;version=9.0.0", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.3, text/plain;q=0.4", False),
        ("application/openmetrics-text;q=x", False),
        # What Prometheus 3 sends.
        (
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
                "application/openmetrics-text;version=0.0.1;q=0.4,"
                "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
            ),
            True,
        ),
    ],
)
def test_the_format_is_what_the_scraper_prefers(accept: str, is_open: bool) -> None:
    assert prefers_open_metrics(accept) is is_open
