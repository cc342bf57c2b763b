"""Single values for Prometheus, from whatever part of a program has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from bascule.observe._catalog import FAMILIES
from bascule.observe._families import Row

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

    @classmethod
    def declared(cls, name: str, value: float, **labels: str) -> Sample:
        """Make a sample of a family that bascule declares."""
        return cls(name, FAMILIES[name].meaning, value, labels)

    def row(self) -> Row | None:
        """Give it as a row of the declared family that has its name; None if none has."""
        family = FAMILIES.get(self.name)
        if family is None:
            return None
        return Row(self.name, tuple(self.labels[label] for label in family.labels), self.value)


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
