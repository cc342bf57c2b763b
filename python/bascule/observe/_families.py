"""The one way in which numbers become Prometheus metrics: a part declares its families and gives rows."""

from __future__ import annotations

from itertools import accumulate, islice
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client import samples
    from prometheus_client.metrics_core import Metric

__all__ = ["Distribution", "Exemplar", "Families", "Family", "Merged", "Row", "merge_numbers"]

#: Of states that count as 0 closed, 1 open and 2 half-open, the worst one comes first.
_WORST_FIRST = (1.0, 2.0)


class Family(NamedTuple):
    """One metric.

    :ivar kind: what several rows of the same labels come to, of one process or of several: of a
        ``counter`` or a ``sum``, which is a gauge, they add up; of a ``gauge`` the largest counts,
        of a ``least`` the smallest, of a ``state`` the worst of a breaker's; a ``histogram`` has
        distributions
    :ivar labels: names of its labels, whose values must be few
    :ivar meaning: in a sentence
    """

    kind: Literal["counter", "gauge", "sum", "least", "state", "histogram"]
    labels: tuple[str, ...]
    meaning: str

    @property
    def type(self) -> str:
        """What Prometheus calls it."""
        return self.kind if self.kind in {"counter", "histogram"} else "gauge"


#: Families by name; a counter's without ``_total``.
Families: TypeAlias = "Mapping[str, Family]"


class Exemplar(NamedTuple):
    """One measurement of a bucket whose trace was kept.

    :ivar value: in the unit of the histogram
    :ivar timestamp: seconds since the epoch
    """

    trace_id: str
    value: float
    timestamp: float


class Distribution(NamedTuple):
    """What a histogram shows of one set of labels.

    :ivar bounds: upper bounds of the buckets, without infinity
    :ivar buckets: counts, not cumulative, the last without an upper bound
    :ivar total: sum of all that was measured
    :ivar exemplars: by index of the bucket, one at most
    """

    bounds: Sequence[float]
    buckets: Sequence[int]
    total: float
    exemplars: Mapping[int, Exemplar] = {}

    def plus(self, other: Distribution) -> Distribution:
        """Add what another one has, of the same bounds."""
        buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        exemplars = {**self.exemplars, **other.exemplars}
        return Distribution(self.bounds, buckets, self.total + other.total, exemplars)


class Row(NamedTuple):
    """One number of a part, or one distribution.

    :ivar metric: the name of one of the part's families
    :ivar labels: values of its labels
    """

    metric: str
    labels: tuple[str, ...]
    value: float | Distribution


class Merged:
    """Rows of all parts, each set of labels once only, as an exposition must have them."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._values: dict[str, dict[tuple[str, ...], float | Distribution]] = {}

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows of the families."""
        for metric, labels, value in rows:
            known = self._values.setdefault(metric, {})
            before = known.get(labels)
            known[labels] = (
                value if before is None else _both(self._families[metric], before, value)
            )

    def render(
        self, only: Callable[[str], bool] = lambda _: True, most: int | None = None
    ) -> Iterable[Metric]:
        """Give the families that have a row, in the order of their declaration.

        :param only: tells by the name whether a family is wanted
        :param most: sets of labels at once; a family with more comes in pieces
        """
        for name, family in self._families.items():
            if name in self._values and only(name):
                rows = iter(self._values[name].items())
                while piece := dict(islice(rows, most)):
                    yield _render(name, family, piece)


def merge_numbers(kind: str, one: float, other: float) -> float:
    """Make one number of two that share their labels, by the kind of their family."""
    if kind == "gauge":
        return max(one, other)
    if kind == "least":
        return min(one, other)
    if kind == "state":
        return next((state for state in _WORST_FIRST if state in {one, other}), 0.0)
    return one + other


def _both(
    family: Family, one: float | Distribution, other: float | Distribution
) -> float | Distribution:
    if isinstance(one, Distribution) and isinstance(other, Distribution):
        return one.plus(other)
    if isinstance(one, Distribution) or isinstance(other, Distribution):
        raise TypeError(f"a number and a distribution of one metric: {family.meaning}")
    return merge_numbers(family.kind, one, other)


def _render(
    name: str, family: Family, values: Mapping[tuple[str, ...], float | Distribution]
) -> Metric:
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    kind, names, meaning = family
    if kind == "histogram":
        histogram = HistogramMetricFamily(name, meaning, labels=names)
        for labels, value in values.items():
            if isinstance(value, Distribution):
                histogram.add_metric(labels, _cumulative(value), value.total)
        return histogram
    made = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(
        name, meaning, labels=names
    )
    for labels, value in values.items():
        if not isinstance(value, Distribution):
            made.add_metric(labels, value)
    return made


def _cumulative(
    given: Distribution,
) -> list[tuple[str, float] | tuple[str, float, samples.Exemplar]]:
    """Give the buckets as an exposition has them."""
    from prometheus_client import samples

    # Of the format, OpenMetrics wants a fraction: "1.0".
    limits = [*(repr(float(bound)) for bound in given.bounds), "+Inf"]
    made: list[tuple[str, float] | tuple[str, float, samples.Exemplar]] = [
        *zip(limits, accumulate(given.buckets), strict=True)
    ]
    for at, (trace_id, value, timestamp) in given.exemplars.items():
        kept = samples.Exemplar({"trace_id": trace_id}, value, round(timestamp, 3))
        made[at] = (*made[at][:2], kept)
    return made
