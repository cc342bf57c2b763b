"""The harness's own arithmetic: a figure that it gets wrong would be believed."""

import json
import re
import sys
from html.parser import HTMLParser
from typing import Any

import pytest
from benches.__main__ import SUITES
from benches.harness import h2load, process
from benches.harness.figures import Figures, Key
from benches.harness.h2load import Outcome, Shape
from benches.macro.server import require_replies
from benches.peers import MissingToolError, echo, require
from benches.peers.percentile import percentile
from benches.report import html, plots
from benches.report.render import (
    MARKERS,
    PAGE,
    PLOTS,
    PUBLISHED,
    document,
    fragment,
    put_between_markers,
)
from benches.report.targets import judge
from benches.report.texts import SUITES as SECTIONS
from benches.report.units import readable

SAID = """\
finished in 2.00s, 9858.50 req/s, 1.14MB/s
requests: 19717 total, 19817 started, 19717 done, 19717 succeeded, {failed} failed, 0 errored, 0 timeout
status codes: 19718 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 2.28MB (2392000) total, 96.87KB (99200) headers (space savings 96.15%), 450.63KB (461441) data
"""
AT_FULL_LOAD = Key("server", "bascule asyncio", "-c1 -m100", "calls_per_second")


def test_the_output_of_h2load_is_read() -> None:
    outcome = h2load._parse(SAID.format(failed=0), 2.0, "h2load")

    assert (outcome.succeeded, outcome.data_bytes) == (19717, 461441)
    assert outcome.per_second == 9858.5


@pytest.mark.parametrize("said", [SAID.format(failed=3), "segmentation fault"])
def test_a_run_with_failures_counts_for_nothing(said: str) -> None:
    with pytest.raises(RuntimeError):
        h2load._parse(said, 2.0, "h2load")


@pytest.mark.parametrize("data_bytes", [1000 * 23 - 1, (1000 + 100) * 23 + 1])
def test_replies_of_the_wrong_size_are_noticed(data_bytes: int) -> None:
    outcome = Outcome(1000, data_bytes, 1.0, "h2load")

    with pytest.raises(RuntimeError, match="bytes of replies came, 23000 to 25300 were due"):
        require_replies(outcome, Shape(1, 100), 23)


def test_a_body_has_the_length_prefix_of_grpc() -> None:
    framed = echo.framed(echo.REQUEST)

    assert framed[0] == 0
    assert int.from_bytes(framed[1:5], "big") == len(framed) - 5
    assert type(echo.REQUEST).FromString(framed[5:]) == echo.REQUEST


def _figures(bascule: float, grpcio: float) -> Figures:
    figures = Figures()
    for sample in (bascule * 0.5, bascule, bascule * 9):
        figures.add(AT_FULL_LOAD, "1/s", sample, "h2load")
    figures.add(AT_FULL_LOAD._replace(subject="grpcio.aio"), "1/s", grpcio, "h2load")
    return figures


@pytest.mark.parametrize(("bascule", "met"), [(12_000.0, True), (11_990.0, False)])
def test_a_ratio_is_judged_by_medians(bascule: float, met: bool) -> None:
    (verdict,) = judge(_figures(bascule, 1_000.0))

    assert verdict.met is met
    assert verdict.value == bascule / 1_000


def test_limits_are_judged_for_bascule_only() -> None:
    figures = Figures()
    idle = Key("memory", "bascule trio", "10000 idle connections", "bytes_per_connection")
    figures.add(idle, "B", 65_537, "")
    figures.add(idle._replace(subject="grpclib"), "B", 100_000, "")

    (verdict,) = judge(figures)

    assert not verdict.met
    assert verdict.target.figure == idle


@pytest.mark.parametrize(
    ("case", "metric", "value", "met"),
    [
        ("a new instance", "first_routed_call_p99", 0.25, True),
        ("a new instance", "first_routed_call_p99", 0.26, False),
        ("1000 watches", "sockets", 64, True),
        ("1000 watches", "sockets", 65, False),
    ],
)
def test_discovery_is_judged_by_limits(case: str, metric: str, value: float, met: bool) -> None:
    figures = Figures()
    figures.add(Key("discovery", "bascule trio", case, metric), "", value, "")

    (verdict,) = judge(figures)

    assert verdict.met is met


@pytest.mark.parametrize(("steps", "met"), [(200.0, True), (199.0, False)])
def test_sagas_are_judged_by_the_ratio_to_dbos(steps: float, met: bool) -> None:
    figures = Figures()
    key = Key("sagas", "bascule asyncio, fsync", "10 at a time", "steps_per_second")
    figures.add(key, "1/s", steps, "")
    figures.add(key._replace(subject="DBOS"), "1/s", 100.0, "")

    (verdict,) = judge(figures)

    assert verdict.met is met


def test_every_suite_has_a_section_on_the_page() -> None:
    assert set(SECTIONS) == set(SUITES)


@pytest.mark.parametrize(
    ("count", "percent", "value"),
    [(1, 50, 1), (10, 50, 5), (10, 99, 10), (100, 99, 99), (200, 99, 198)],
)
def test_a_percentile_is_a_sample(count: int, percent: float, value: float) -> None:
    assert percentile(range(count, 0, -1), percent) == value


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (87_700.4, "1/s", "87,700"),
        (8.83e-6, "s", "8.83 us"),
        (0.0, "s", "0 ns"),
        (65_536, "B", "64 KiB"),
        (2**30, "B/s", "1 GiB/s"),
    ],
)
def test_values_are_readable(value: float, unit: str, text: str) -> None:
    assert readable(value, unit) == text


def _report() -> dict[str, Any]:
    """A run of one suite, as JSON has it."""
    figures = _figures(12_000, 1_000)
    return {
        "machine": {
            "cpu": "a CPU",
            "cores": 2,
            "system": "Linux",
            "python": "3.11.7",
            "packages": {"trio": "0.35"},
            "memory_gib": 8.0,
            "h2load": "h2load nghttp2/1.52",
            "commit": "abc",
            "measured_at": "2026-01-01T00:00:00+00:00",
            "load_average": 0.5,
        }
        | {"go": "go 1.26", "rust": "rustc 1.95", "servers": ["redis-server 7.0"]},
        "settings": {"rounds": 3, "seconds": 2.0, "quick": False},
        "figures": [figure.as_dict() for figure in figures],
        "targets": [verdict.as_dict() for verdict in judge(figures)],
        "not_measured": {"gateway": "go is missing"},
        "failed": {},
    }


def test_a_run_is_published_as_markdown() -> None:
    report = _report()

    page, table = document(report), fragment(report)

    assert "| -c1 -m100 | bascule asyncio | 12,000 (6,000 to 108,000) |" in page
    assert "at least 12x | 12.00x | met" in page
    assert "rustc 1.95; redis-server 7.0." in page
    assert "gateway: go is missing" in page
    assert "| bascule asyncio | 12,000 |  |  |  |" in table


class _Page(HTMLParser):
    """What a page is made of: tags that are open in the end, all tags, addresses, the words of rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        named = dict(attributes)
        self.addresses += [str(named[each]) for each in ("href", "src") if each in named]
        self.ids.add(str(named.get("id")))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_a_run_is_published_as_a_page_that_needs_nothing_else() -> None:
    report = _report()
    report["figures"][0]["command"] = "h2load <&>"

    page = _Page(html.page(report))

    assert page.open == []
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert page.addresses
    assert all(each.startswith("#") and each[1:] in page.ids for each in page.addresses)
    for said in ("12,000 6,000 to 108,000", "12x at least 12x", "h2load <&>", "go is missing"):
        assert said in page.words
    assert "url(" not in html.page(report)


def test_a_quick_run_is_said_to_mean_nothing() -> None:
    report = _report()
    report["settings"]["quick"] = True

    assert "mean nothing" in html.page(report)


@pytest.mark.parametrize(
    ("times", "kind", "left", "width"),
    [
        (1.0, "met", "25%", "0%"),
        (2.0, "met", "25%", "25%"),
        (0.5, "missed", "0%", "25%"),
        (100.0, "met", "25%", "75%"),
        (0.0, "missed", "0%", "25%"),
    ],
)
def test_a_margin_grows_from_its_limit(times: float, kind: str, left: str, width: str) -> None:
    drawn = plots.margin(times, told="")

    assert f'class="{kind}" x="{left}" y="4" height="10" width="{width}"' in drawn


def test_a_bar_and_its_whisker_share_a_scale() -> None:
    drawn = plots.bar(50.0, 40.0, 80.0, 80.0, told="a < b")

    assert 'class="bar" y="3" height="12" width="62.5%"' in drawn
    assert re.findall(r'x1="([^"]+)" x2="([^"]+)"', drawn)[0] == ("50%", "100%")
    assert "a &lt; b" in drawn


def test_what_is_published_is_the_last_run() -> None:
    """Pages are written by ``python -m benches.report.render``, never by hand."""
    report = json.loads(PUBLISHED.read_text())

    assert PAGE.read_text() == document(report)
    assert PLOTS.read_text() == html.page(report)


def test_the_readme_keeps_what_stands_around_its_table() -> None:
    begin, end = MARKERS

    text = put_between_markers(f"before\n{begin}\nold\n{end}\nafter\n", "new\n")

    assert text == f"before\n{begin}\nnew\n{end}\nafter\n"
    with pytest.raises(ValueError, match="no place"):
        put_between_markers("without", "new\n")


def test_a_server_that_does_not_start_is_quoted() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such port')"]

    with (
        pytest.raises(RuntimeError, match="before it was ready") as raised,
        process.serving(command, None),
    ):
        pass

    assert "no such port" in raised.value.__notes__[0]


def test_a_missing_program_is_named_with_the_way_to_get_it() -> None:
    with pytest.raises(MissingToolError, match="no-such-tool is missing: buy it"):
        require("no-such-tool", "buy it")
