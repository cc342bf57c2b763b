"""Metrics of events: what buses and outbox relays count, as families under stable names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.metrics_core import Metric


class EventRow(NamedTuple):
    """One number of a bus or an outbox.

    :ivar metric: one of the names in :data:`EVENT_METRICS`
    :ivar labels: values of its labels
    """

    metric: str
    labels: tuple[str, ...]
    value: float


class EventStats(Protocol):
    """What buses and outbox relays count."""

    def rows(self) -> Iterable[EventRow]:
        """Return each number with its metric's name and labels."""
        ...


_SUBSCRIBER = ("topic", "subscriber")

#: Kind, labels and meaning of each metric of events. Topics and subscribers are named in code: few.
EVENT_METRICS: Mapping[str, tuple[Literal["counter", "gauge"], tuple[str, ...], str]] = {
    "events_published": ("counter", ("topic",), "Events that the bus has taken"),
    "events_handled": ("counter", _SUBSCRIBER, "Events handled"),
    "events_retried": ("counter", _SUBSCRIBER, "Calls of a handler after one that had raised"),
    "events_dead_lettered": (
        "counter",
        _SUBSCRIBER,
        "Events put aside, since their handler kept raising or nobody could read them",
    ),
    "events_lag": ("gauge", _SUBSCRIBER, "Events published and not handled yet"),
    "events_lag_seconds": ("gauge", _SUBSCRIBER, "Age of the oldest event not handled yet"),
    "outbox_relayed": ("counter", ("outbox",), "Events moved from an outbox to the bus"),
    "outbox_pending": ("gauge", ("outbox",), "Events that wait in an outbox"),
    "outbox_oldest_seconds": ("gauge", ("outbox",), "Age of the oldest event in an outbox"),
}


def collect_events(sources: Iterable[EventStats]) -> Iterable[Metric]:
    """Turn the numbers of this moment into metric families."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    sums: dict[str, dict[tuple[str, ...], float]] = {}
    for stats in sources:
        for metric, labels, value in stats.rows():
            known = sums.setdefault(metric, {})
            # What parts of this process have counted adds up; what they have all looked at does not.
            if EVENT_METRICS[metric][0] == "counter":
                known[labels] = known.get(labels, 0) + value
            else:
                known[labels] = max(known.get(labels, value), value)
    for metric, samples in sums.items():
        kind, names, meaning = EVENT_METRICS[metric]
        family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(
            metric, meaning, labels=names
        )
        for labels, value in samples.items():
            family.add_metric(labels, value)
        yield family
