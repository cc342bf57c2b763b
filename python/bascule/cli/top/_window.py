"""What happened between two scrapes of each process, summed up over all processes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bascule.cli.top._scrape import Labels, Scrape

__all__ = ["Window", "quantile"]

Key = tuple[str, ...]


@dataclass(slots=True)
class Window:
    """Pairs of scrapes.

    :ivar last: the newest of each process that answered
    :ivar before: the one before that of each that answered twice, however long ago
    """

    last: Mapping[str, Scrape] = field(default_factory=dict)
    before: Mapping[str, Scrape] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there is a process of which two scrapes are known."""
        return any(url in self.before for url in self.last)

    def rates(self, name: str, *labels: str) -> dict[Key, float]:
        """Give how much a counter grew a second, by the values of some of its labels.

        A counter that fell was started again: it has grown by what it shows. One that was not
        there before began with nothing.
        """
        sums: dict[Key, float] = {}
        for url, now in self.last.items():
            if (then := self.before.get(url)) is None or now.at <= then.at:
                continue
            old = then.series.get(name, {})
            for key, value in now.series.get(name, {}).items():
                grown = _grown(old.get(key, 0.0), value) / (now.at - then.at)
                if (named := _pick(key, labels)) is not None:
                    sums[named] = sums.get(named, 0.0) + grown
        return sums

    def histograms(self, name: str, *labels: str) -> dict[Key, list[tuple[float, float]]]:
        """Give a histogram's cumulative buckets, as they grew a second: (upper bound, count)."""
        grown: dict[Key, dict[float, float]] = {}
        for (*key, bound), rate in self.rates(f"{name}_bucket", *labels, "le").items():
            if (limit := _number(bound)) is not None:
                buckets = grown.setdefault(tuple(key), {})
                buckets[limit] = buckets.get(limit, 0.0) + rate
        return {key: sorted(buckets.items()) for key, buckets in grown.items()}

    def gauges(
        self,
        name: str,
        *labels: str,
        merge: Callable[[float, float], float] = max,
    ) -> dict[Key, float]:
        """Give a gauge by the values of some of its labels.

        :param merge: of several processes, or of labels that are not asked for
        """
        found: dict[Key, float] = {}
        for now in self.last.values():
            for key, value in now.series.get(name, {}).items():
                named = _pick(key, labels)
                if named is None or not math.isfinite(value):
                    continue
                found[named] = value if named not in found else merge(found[named], value)
        return found

    def only(self, url: str) -> Window:
        """Give the window of one process."""
        return Window(
            {each: now for each, now in self.last.items() if each == url},
            {each: then for each, then in self.before.items() if each == url},
        )


def quantile(part: float, buckets: Iterable[tuple[float, float]]) -> float | None:
    """Estimate a quantile, as Prometheus' ``histogram_quantile`` does: linear within a bucket.

    :param part: 0.5 for the median
    :param buckets: cumulative, sorted, the last one without an upper bound
    :return: None if nothing was counted; the last finite bound if it is beyond that
    """
    known = list(buckets)
    if not known or not math.isinf(known[-1][0]):
        return None
    counts, highest = [], 0.0
    for _, count in known:  # processes of different bounds may leave steps downwards
        highest = max(highest, count)
        counts.append(highest)
    if not counts[-1] > 0.0:
        return None
    rank = part * counts[-1]
    at = next(index for index, count in enumerate(counts) if count >= rank)
    bound = known[at][0]
    if math.isinf(bound):
        return known[at - 1][0] if at else None
    start, below = (known[at - 1][0], counts[at - 1]) if at else (0.0, 0.0)
    if bound <= 0.0 or counts[at] <= below:
        return bound
    return start + (bound - start) * (rank - below) / (counts[at] - below)


def _grown(old: float, new: float) -> float:
    if not (math.isfinite(old) and math.isfinite(new)):
        return 0.0
    return new - old if new >= old else max(new, 0.0)


def _pick(key: Labels, labels: tuple[str, ...]) -> Key | None:
    """The values of some labels; None if one is missing, which makes it another family."""
    values = dict(key)
    try:
        return tuple(values[label] for label in labels)
    except KeyError:
        return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number
