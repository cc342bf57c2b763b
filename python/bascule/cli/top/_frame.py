"""One look at all processes: what :mod:`_view` shows, and what ``--json`` prints.

Families that a process does not have are left out; nothing is asked of them but their names.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from bascule.cli.top._window import Window, quantile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bascule.cli.top._scrape import Scrape

__all__ = ["Calls", "Frame", "History", "Process"]

#: What a server answers for faults of its own.
#: Source: OpenTelemetry, "Semantic conventions for gRPC", status of a server's span.
FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)

_BREAKERS = {0: "closed", 1: "open", 2: "half-open"}
_ALARM = {"closed": 0, "half-open": 1, "open": 2}


class Process(msgspec.Struct, frozen=True, omit_defaults=True):
    """One process.

    :ivar problem: why it does not answer; empty if it does
    :ivar silent: seconds for which it has not answered; None if it never did
    :ivar took: seconds that the scrape took
    :ivar lag: how late 99 of 100 timers of its event loop are at most, in seconds
    :ivar tasks: of its event loop
    """

    url: str
    problem: str = ""
    silent: float | None = None
    took: float | None = None
    version: str = ""
    backend: str = ""
    lag: float | None = None
    tasks: float | None = None
    connections: float | None = None


class Calls(msgspec.Struct, frozen=True):
    """Calls of one method, or requests of one route.

    :ivar rate: a second; None if only one scrape is known
    :ivar faults: part of them that failed by the fault of a server
    :ivar refused: part of them that was answered by another status than success
    :ivar p50: seconds, estimated within a bucket of the histogram
    """

    name: str
    method: str
    rate: float | None
    faults: float | None
    refused: float | None
    p50: float | None
    p99: float | None
    in_progress: float | None


class Frame(msgspec.Struct, frozen=True):
    """Everything at one moment. Rates are a second, over the time between two scrapes.

    :ivar at: seconds since the epoch
    :ivar breakers: state by name, the worst of all processes
    :ivar limits: rates of decisions by limit and outcome
    :ivar retries: rates of attempts by target and kind
    :ivar sagas: by saga: ``active`` and the states of unfinished runs, and rates of ends
    :ivar outboxes: by outbox: ``pending`` events, and the age of the ``oldest`` in seconds
    :ivar events: by topic and subscriber: ``lag``, its age in ``seconds``, and rates
    :ivar discovery: by service: ``age`` of its list in seconds, and rate of ``errors``
    :ivar certificates: seconds that are left, by name
    """

    at: float
    processes: list[Process]
    served: list[Calls]
    made: list[Calls]
    requests: list[Calls]
    breakers: dict[str, str]
    limits: dict[str, dict[str, float]]
    retries: dict[str, dict[str, float]]
    sagas: dict[str, dict[str, float]]
    outboxes: dict[str, dict[str, float]]
    events: dict[str, dict[str, float]]
    databases: dict[str, dict[str, float]]
    discovery: dict[str, dict[str, float]]
    certificates: dict[str, float]

    @property
    def answering(self) -> int:
        """How many processes answer."""
        return sum(not process.problem for process in self.processes)


@dataclass(slots=True)
class History:
    """The last two good scrapes of each process."""

    urls: Sequence[str]
    _last: dict[str, Scrape] = field(default_factory=dict)
    _before: dict[str, Scrape] = field(default_factory=dict)
    _silent_since: dict[str, float] = field(default_factory=dict)

    def take(self, scrapes: Mapping[str, Scrape], *, at: float) -> Frame:
        """Add one scrape of each process, and make a frame.

        :param at: seconds since the epoch
        """
        answered: dict[str, Scrape] = {}
        for url, now in scrapes.items():
            if now.problem:
                self._silent_since.setdefault(url, now.at)
                continue
            self._silent_since.pop(url, None)
            answered[url] = now
            if url in self._last:
                self._before[url] = self._last[url]
            self._last[url] = now
        window = Window(answered, self._before)
        processes = [self._process(scrapes[url], window) for url in self.urls]
        return _frame(window, processes, at)

    def _process(self, now: Scrape, window: Window) -> Process:
        if now.problem:
            seen = now.url in self._last
            silent = now.at - self._silent_since[now.url] if seen else None
            return Process(now.url, problem=now.problem, silent=silent)
        own = window.only(now.url)
        version, backend = next(
            iter(own.gauges("bascule_build_info", "version", "backend")), ("", "")
        )
        return Process(
            now.url,
            took=now.took,
            version=version,
            backend=backend,
            lag=quantile(0.99, own.histograms("event_loop_lag_seconds").get((), ())),
            tasks=own.gauges("event_loop_tasks", merge=operator.add).get(()),
            connections=own.gauges("server_connections", merge=operator.add).get(()),
        )


def _frame(window: Window, processes: list[Process], at: float) -> Frame:
    return Frame(
        at=at,
        processes=processes,
        served=_calls(window, "grpc"),
        made=_calls(window, "grpc_client"),
        requests=_requests(window),
        breakers=_breakers(window),
        limits=_table(
            _by_label(window.rates("rate_limit_decisions_total", "limit", "outcome")),
            degraded=window.rates("rate_limit_degraded_total", "limit"),
        ),
        retries=_by_label(window.rates("grpc_client_attempts_total", "target", "kind")),
        sagas=_table(
            _by_label(window.gauges("saga_unfinished", "saga", "state")),
            _by_label(window.rates("saga_runs_total", "saga", "outcome"), suffix="/s"),
            active=window.gauges("saga_active", "saga", merge=operator.add),
        ),
        outboxes=_table(
            pending=window.gauges("outbox_pending", "outbox"),
            oldest=window.gauges("outbox_oldest_seconds", "outbox"),
            relayed=window.rates("outbox_relayed_total", "outbox"),
        ),
        events=_table(
            lag=_joined(window.gauges("events_lag", "topic", "subscriber")),
            seconds=_joined(window.gauges("events_lag_seconds", "topic", "subscriber")),
            handled=_joined(window.rates("events_handled_total", "topic", "subscriber")),
            retried=_joined(window.rates("events_retried_total", "topic", "subscriber")),
            dead=_joined(window.rates("events_dead_lettered_total", "topic", "subscriber")),
        ),
        databases=_table(
            _by_label(
                window.gauges("database_connections", "database", "state", merge=operator.add)
            ),
            troubles=window.rates("database_transaction_troubles_total", "database"),
        ),
        discovery=_table(
            age=window.gauges("discovery_list_age_seconds", "service"),
            errors=window.rates("discovery_errors_total", "service"),
        ),
        certificates={
            name: ends - at
            for (name,), ends in window.gauges(
                "tls_certificate_not_after_timestamp_seconds", "name", merge=min
            ).items()
        },
    )


def _calls(window: Window, prefix: str) -> list[Calls]:
    totals = window.rates(f"{prefix}_requests_total", "service", "method")
    faults: dict[tuple[str, ...], float] = {}
    refused: dict[tuple[str, ...], float] = {}
    statuses = window.rates(f"{prefix}_requests_total", "service", "method", "status")
    for (service, method, status), rate in statuses.items():
        counted = faults if status in FAULTS else refused
        if status != "OK":
            counted[service, method] = counted.get((service, method), 0.0) + rate
    return _rows(
        window,
        totals,
        faults,
        refused,
        window.histograms(f"{prefix}_request_duration_seconds", "service", "method"),
        window.gauges(f"{prefix}_requests_in_progress", "service", "method", merge=operator.add),
        window.gauges(f"{prefix}_requests_total", "service", "method"),
    )


def _requests(window: Window) -> list[Calls]:
    totals = window.rates("http_requests_total", "route", "method")
    faults: dict[tuple[str, ...], float] = {}
    refused: dict[tuple[str, ...], float] = {}
    statuses = window.rates("http_requests_total", "route", "method", "status")
    for (route, method, status), rate in statuses.items():
        if status.startswith("5"):
            faults[route, method] = faults.get((route, method), 0.0) + rate
        elif status.startswith("4"):
            refused[route, method] = refused.get((route, method), 0.0) + rate
    return _rows(
        window,
        totals,
        faults,
        refused,
        window.histograms("http_request_duration_seconds", "route", "method"),
        {},
        window.gauges("http_requests_total", "route", "method"),
    )


def _rows(
    window: Window,
    totals: Mapping[tuple[str, ...], float],
    faults: Mapping[tuple[str, ...], float],
    refused: Mapping[tuple[str, ...], float],
    times: Mapping[tuple[str, ...], list[tuple[float, float]]],
    in_progress: Mapping[tuple[str, ...], float],
    known: Mapping[tuple[str, ...], float],
) -> list[Calls]:
    """Make a row of each method that was ever called, the busiest first."""
    rows = []
    for key in {**known, **in_progress}:
        rate = totals.get(key, 0.0) if window.measured else None
        rows.append(
            Calls(
                name=key[0],
                method=key[1],
                rate=rate,
                faults=faults.get(key, 0.0) / rate if rate else None,
                refused=refused.get(key, 0.0) / rate if rate else None,
                p50=quantile(0.5, times.get(key, ())),
                p99=quantile(0.99, times.get(key, ())),
                in_progress=in_progress.get(key),
            )
        )
    return sorted(rows, key=lambda row: (-(row.rate or 0.0), row.name, row.method))


def _breakers(window: Window) -> dict[str, str]:
    def worse(one: float, other: float) -> float:
        return max(one, other, key=lambda state: _ALARM.get(_BREAKERS.get(int(state), ""), -1))

    states = window.gauges("circuit_breaker_state", "name", merge=worse)
    named = {name: _BREAKERS.get(int(state), f"{state:g}") for (name,), state in states.items()}
    return dict(sorted(named.items(), key=lambda each: (-_ALARM.get(each[1], 3), each[0])))


def _by_label(
    values: Mapping[tuple[str, ...], float], *, suffix: str = ""
) -> dict[str, dict[str, float]]:
    """By the first label, then by the second one."""
    rows: dict[str, dict[str, float]] = {}
    for (name, column), value in values.items():
        rows.setdefault(name, {})[column + suffix] = value
    return rows


def _joined(values: Mapping[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    return {(" > ".join(key),): value for key, value in values.items()}


def _table(
    *parts: Mapping[str, Mapping[str, float]], **columns: Mapping[tuple[str, ...], float]
) -> dict[str, dict[str, float]]:
    """Put rows together that have the same name."""
    rows: dict[str, dict[str, float]] = {}
    for part in parts:
        for name, cells in part.items():
            rows.setdefault(name, {}).update(cells)
    for column, values in columns.items():
        for (name,), value in sorted(values.items()):
            rows.setdefault(name, {})[column] = value
    return rows
