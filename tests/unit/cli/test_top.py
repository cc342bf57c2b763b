"""``bascule top``: what it makes of metrics, be they good or odd."""

from __future__ import annotations

import contextlib
import io
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bascule.cli.top._frame import Frame, History
from bascule.cli.top._scrape import Scrape, metrics_url, parse
from bascule.cli.top._view import view
from bascule.cli.top._window import Window, quantile
from bascule.errors import ConfigurationError, DecodeError

A, B = "http://127.0.0.1:9102/metrics", "http://127.0.0.1:9103/metrics"

#: What a process shows that has answered ``calls``, a tenth of them with the fault of a server.
EXPOSITION = """\
# TYPE grpc_requests_total counter
grpc_requests_total{{service="user.UserService",method="GetUser",status="OK"}} {ok}
grpc_requests_total{{service="user.UserService",method="GetUser",status="INTERNAL"}} {faults}
grpc_requests_total{{service="user.UserService",method="GetUser",status="NOT_FOUND"}} {refused}
grpc_requests_total{{service="user.UserService",method="ListUsers",status="OK"}} 5
# TYPE grpc_request_duration_seconds histogram
grpc_request_duration_seconds_bucket{{service="user.UserService",method="GetUser",le="0.001"}} {half}
grpc_request_duration_seconds_bucket{{service="user.UserService",method="GetUser",le="0.002"}} {all}
grpc_request_duration_seconds_bucket{{service="user.UserService",method="GetUser",le="+Inf"}} {all}
grpc_requests_in_progress{{service="user.UserService",method="GetUser"}} 3
circuit_breaker_state{{name="product"}} {breaker}
rate_limit_decisions_total{{limit="subject",outcome="admitted"}} {ok}
rate_limit_decisions_total{{limit="subject",outcome="rejected"}} {faults}
saga_unfinished{{saga="create-order",state="parked"}} 2
saga_active{{saga="create-order"}} 1
saga_runs_total{{saga="create-order",outcome="completed"}} {ok}
outbox_pending{{outbox="user"}} 7
outbox_oldest_seconds{{outbox="user"}} 1.5
discovery_list_age_seconds{{service="user.UserService"}} 4
event_loop_lag_seconds_bucket{{le="0.01"}} {all}
event_loop_lag_seconds_bucket{{le="+Inf"}} {all}
event_loop_tasks 12
bascule_build_info{{version="0.1.0",python="3.11.7",backend="trio"}} 1
tls_certificate_not_after_timestamp_seconds{{name="localhost"}} {ends}
"""


def exposition(calls: int, *, breaker: int = 0, ends: float = 1e12) -> str:
    return EXPOSITION.format(
        ok=calls * 7 // 10,
        faults=calls // 10,
        refused=calls * 2 // 10,
        half=calls // 2,
        all=calls,
        breaker=breaker,
        ends=ends,
    )


def said(url: str, at: float, text: str) -> Scrape:
    return Scrape(url, at, 0.004, parse(text))


def frame_of(*rounds: dict[str, Scrape], at: float = 1000.0) -> Frame:
    history = History([A, B] if any(B in each for each in rounds) else [A])
    for each in rounds:
        frame = history.take(each, at=at)
    return frame


def shown(frame: Frame, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(view(frame))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


GOLDEN = """\
bascule top  00:16:40 UTC  1 of 2 answer

process                                   loop  late, p99    tasks  connections   scrape
http://127.0.0.1:9102                     trio     9.9 ms       12            -     4 ms
http://127.0.0.1:9103 is down for 10 s: no answer within 2 s

served                                   /s   faults  refused      p50      p99      now
user.UserService/GetUser                100    10.0%    20.0%     1 ms  1.98 ms        3
user.UserService/ListUsers              0.0        -        -        -        -        -

breakers                                                                           state
product                                                                             open

limits                                                            admitted/s  rejected/s
subject                                                                 70.0        10.0

sagas                                                       active   parked  completed/s
create-order                                                     1        2         70.0

outbox                                                                  pending   oldest
user                                                                          7    1.5 s

discovery                                                                            age
user.UserService                                                                     4 s

certificates                                                                         end
localhost                                                                    in 2.0 days
"""


def test_a_frame_in_a_terminal_of_fixed_width() -> None:
    soon = 1000.0 + 2 * 86400
    frame = frame_of(
        {A: said(A, 10.0, exposition(1000)), B: said(B, 10.0, exposition(0))},
        {A: said(A, 20.0, exposition(1000)), B: Scrape(B, 20.0, problem="no answer")},
        {
            A: said(A, 30.0, exposition(2000, breaker=1, ends=soon)),
            B: Scrape(B, 30.0, problem="no answer within 2 s"),
        },
    )

    assert shown(frame, 88) == GOLDEN.rstrip()


@pytest.mark.parametrize("width", [1, 20, 40, 80, 300])
def test_every_width_will_do(width: int) -> None:
    frame = frame_of(
        {A: said(A, 10.0, exposition(0)), B: Scrape(B, 10.0, problem="refused")},
        {A: said(A, 12.0, exposition(100)), B: Scrape(B, 12.0, problem="refused")},
    )

    assert all(len(line) <= width for line in shown(frame, width).splitlines())


def test_rates_need_two_scrapes() -> None:
    (first, _) = frame_of({A: said(A, 10.0, exposition(1000))}).served

    assert (first.rate, first.faults, first.p50) == (None, None, None)
    assert first.in_progress == 3


def test_processes_are_added_up() -> None:
    frame = frame_of(
        {A: said(A, 10.0, exposition(0)), B: said(B, 10.0, exposition(500))},
        {A: said(A, 20.0, exposition(100)), B: said(B, 15.0, exposition(600, breaker=2))},
    )

    (calls, _) = frame.served
    assert calls.rate == pytest.approx(100 / 10 + 100 / 5)
    assert calls.in_progress == 6
    assert frame.breakers == {"product": "half-open"}  # the worst of both
    assert frame.sagas["create-order"]["parked"] == 2  # all have it from the one log
    assert frame.sagas["create-order"]["active"] == 2


def test_a_process_that_was_started_again_begins_with_nothing() -> None:
    frame = frame_of(
        {A: said(A, 10.0, exposition(1000))},
        {A: Scrape(A, 15.0, problem="refused")},
        {A: said(A, 20.0, exposition(50))},
    )

    assert frame.answering == 1
    # The series that did not change stay as they were; 35, 5 and 10 calls in 10 s are new.
    assert frame.served[0].rate == pytest.approx(5.0)


def test_one_that_never_answered_is_not_said_to_be_silent_for_a_time() -> None:
    frame = frame_of({A: Scrape(A, 10.0, problem="refused")})

    assert frame.processes[0].silent is None
    assert "is down: refused" in shown(frame, 80)


@pytest.mark.parametrize(
    ("part", "buckets", "value"),
    [
        (0.5, [(1.0, 10.0), (2.0, 20.0), (math.inf, 20.0)], 1.0),
        (0.75, [(1.0, 10.0), (2.0, 20.0), (math.inf, 20.0)], 1.5),
        (0.5, [(1.0, 10.0), (math.inf, 10.0)], 0.5),
        (0.99, [(1.0, 0.0), (math.inf, 10.0)], 1.0),  # beyond the last bound
        (0.5, [(math.inf, 10.0)], None),
        (0.5, [(1.0, 0.0), (math.inf, 0.0)], None),
        (0.5, [(1.0, 10.0)], None),  # not a histogram
        (0.5, [], None),
        (0.9, [(1.0, 10.0), (2.0, 9.0), (math.inf, 10.0)], 0.9),  # a step downwards
    ],
)
def test_a_quantile_is_what_prometheus_says(
    part: float, buckets: list[tuple[float, float]], value: float | None
) -> None:
    assert quantile(part, buckets) == (None if value is None else pytest.approx(value))


@given(
    st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=50),
    st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=10, unique=True),
    st.sampled_from([0.5, 0.9, 0.99]),
)
def test_a_quantile_is_in_the_bucket_of_the_true_one(
    values: list[float], bounds: list[float], part: float
) -> None:
    limits = [*sorted(bounds), math.inf]
    buckets = [(limit, float(sum(value <= limit for value in values))) for limit in limits]
    true = sorted(values)[math.ceil(part * len(values) - 1e-9) - 1]

    estimate = quantile(part, buckets)

    upper = next(limit for limit in limits if true <= limit)
    if math.isinf(upper):
        assert estimate == limits[-2]
    else:
        lower = max((limit for limit in limits if limit < true), default=0.0)
        assert estimate is not None
        assert lower - 1e-9 <= estimate <= upper + 1e-9


NAMES = st.sampled_from(
    [
        "grpc_requests_total",
        "grpc_request_duration_seconds_bucket",
        "http_requests_total",
        "circuit_breaker_state",
        "saga_unfinished",
        "events_lag",
        "event_loop_lag_seconds_bucket",
        "bascule_build_info",
        "other",
    ]
)
LABELS = st.dictionaries(
    st.sampled_from(["service", "method", "status", "le", "name", "saga", "state", "route"]),
    st.one_of(st.sampled_from(["+Inf", "0.1", "NaN", "OK", "500"]), st.text(max_size=5)),
    max_size=4,
)
SAMPLES = st.lists(st.tuples(NAMES, LABELS, st.floats()), max_size=30)


@given(st.lists(SAMPLES, min_size=1, max_size=3))
def test_odd_metrics_are_shown_somehow(
    rounds: list[list[tuple[str, dict[str, str], float]]],
) -> None:
    """Missing labels, senseless bounds, NaN, infinity, counters that fall: nothing of it ends the view."""
    history = History([A])
    for index, samples in enumerate(rounds):
        series: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for name, labels, value in samples:
            series.setdefault(name, {})[tuple(sorted(labels.items()))] = value
        frame = history.take({A: Scrape(A, index * 2.0, series=series)}, at=1e9)
        assert shown(frame, 100)
        assert msgspec.json.encode(frame)


@given(st.one_of(st.text(max_size=200), st.text(alphabet='ab{}"=,\\\n #TYPE1.', max_size=60)))
def test_what_is_no_exposition_is_an_error_of_ours(text: str) -> None:
    with contextlib.suppress(DecodeError):
        parse(text)


def test_control_characters_do_not_reach_the_terminal() -> None:
    text = 'circuit_breaker_state{name="a\x1b[2Jb"} 1\n'

    assert "\x1b" not in shown(frame_of({A: said(A, 1.0, text)}), 80)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:9102", "http://127.0.0.1:9102/metrics"),
        ("http://a:1/", "http://a:1/metrics"),
        ("https://a/own/path", "https://a/own/path"),
        ("ftp://a", None),
        ("http://", None),
        ("http://a:0", None),
    ],
)
def test_an_address_is_completed(text: str, url: str | None) -> None:
    if url is None:
        with pytest.raises(ConfigurationError):
            metrics_url(text)
    else:
        assert metrics_url(text) == url


def test_a_window_without_a_scrape_is_empty() -> None:
    assert not Window().measured
    assert Window().rates("grpc_requests_total", "service") == {}
