"""The one way in which numbers become Prometheus metrics: a part declares its families and gives rows."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

__all__ = ["Distribution", "Families", "Family", "Row", "render"]


class Family(NamedTuple):
    """One metric.

    :ivar kind: what several rows of the same labels come to: of a ``counter`` or a ``sum``, which is a
        gauge, they add up; of a ``gauge`` the largest counts; a ``histogram`` has distributions
    :ivar labels: names of its labels, whose values must be few
    :ivar meaning: in a sentence
    """

    kind: Literal["counter", "gauge", "sum", "histogram"]
    labels: tuple[str, ...]
    meaning: str


#: Families by name; a counter's without ``_total``.
Families: TypeAlias = "Mapping[str, Family]"


class Distribution(NamedTuple):
    """What a histogram shows of one set of labels.

    :ivar bounds: upper bounds of the buckets, without infinity
    :ivar buckets: counts, not cumulative, the last without an upper bound
    :ivar total: sum of all that was measured
    """

    bounds: Sequence[float]
    buckets: Sequence[int]
    total: float

    def plus(self, other: Distribution) -> Distribution:
        """Add what another one has, of the same bounds."""
        buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        return Distribution(self.bounds, buckets, self.total + other.total)

    def cumulative(self) -> list[tuple[str, float]]:
        """Give the buckets as an exposition has them."""
        limits = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return list(zip(limits, accumulate(self.buckets), strict=True))


class Row(NamedTuple):
    """One number of a part, or one distribution.

    :ivar metric: the name of one of the part's families
    :ivar labels: values of its labels
    """

    metric: str
    labels: tuple[str, ...]
    value: float | Distribution


def render(families: Families, rows: Iterable[Row]) -> Iterable[Metric]:
    """Turn rows into families, those without a row included: each set of labels may come once only."""
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    merged: dict[str, dict[tuple[str, ...], float | Distribution]] = {name: {} for name in families}
    for metric, labels, value in rows:
        known = merged[metric]
        before = known.get(labels)
        known[labels] = value if before is None else _both(families[metric], before, value)
    for name, (kind, names, meaning) in families.items():
        if kind == "histogram":
            histogram = HistogramMetricFamily(name, meaning, labels=names)
            for labels, value in merged[name].items():
                if isinstance(value, Distribution):
                    histogram.add_metric(labels, value.cumulative(), value.total)
            yield histogram
            continue
        plain = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(
            name, meaning, labels=names
        )
        for labels, value in merged[name].items():
            if not isinstance(value, Distribution):
                plain.add_metric(labels, value)
        yield plain


def _both(
    family: Family, one: float | Distribution, other: float | Distribution
) -> float | Distribution:
    if isinstance(one, Distribution) and isinstance(other, Distribution):
        return one.plus(other)
    if isinstance(one, Distribution) or isinstance(other, Distribution):
        raise TypeError(f"a number and a distribution of one metric: {family.meaning}")
    # What parts of this process have counted adds up; what they have all looked at does not.
    return max(one, other) if family.kind == "gauge" else one + other
