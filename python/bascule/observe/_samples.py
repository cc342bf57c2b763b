"""Single values for Prometheus, from whatever part of bascule has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.metrics_core import Metric

__all__ = ["Sample", "families"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric at this moment.

    :param name: of the metric; a counter's ends in ``_total``
    :param help: what it tells, in a sentence; the same for all samples of a name
    :param labels: the same keys for all samples of a name, and few values
    """

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    kind: Literal["gauge", "counter"] = "gauge"


def families(samples: Iterable[Sample]) -> Iterable[Metric]:
    """Make a family of each name; of samples that share their labels the last one counts."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    by_name: dict[str, dict[tuple[str, ...], Sample]] = {}
    for each in samples:
        by_name.setdefault(each.name, {})[tuple(each.labels.values())] = each
    for name, rows in by_name.items():
        first = next(iter(rows.values()))
        family = GaugeMetricFamily if first.kind == "gauge" else CounterMetricFamily
        made = family(name, first.help, labels=tuple(first.labels))
        for values, each in rows.items():
            made.add_metric(values, each.value)
        yield made
