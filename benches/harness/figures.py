"""What was measured: samples by suite, subject, case and metric."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Key(NamedTuple):
    """Names one figure."""

    suite: str
    subject: str
    case: str
    metric: str


@dataclass
class Figure:
    """The samples of one figure, and the command that made the last of them."""

    key: Key
    unit: str
    command: str
    samples: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle sample: what the figure is quoted as."""
        return statistics.median(self.samples)

    def as_dict(self) -> dict[str, object]:
        """Answer with the figure as JSON has it."""
        return {
            **self.key._asdict(),
            "unit": self.unit,
            "median": self.median,
            "min": min(self.samples),
            "max": max(self.samples),
            "samples": self.samples,
            "command": self.command,
        }


class Figures:
    """Every figure of a run, in the order in which each was first measured."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Figure] = {}
        self.skipped: dict[str, str] = {}  #: by suite or subject, why it was not measured
        self.failed: dict[str, str] = {}  #: by suite, what went wrong

    def __iter__(self) -> Iterator[Figure]:
        return iter(self._by_key.values())

    def add(self, key: Key, unit: str, value: float, command: str) -> None:
        """Add one sample to a figure."""
        figure = self._by_key.setdefault(key, Figure(key, unit, command))
        figure.samples.append(value)

    def skip(self, what: str, why: str) -> None:
        """Note that something was not measured."""
        self.skipped.setdefault(what, why)

    def median(self, key: Key) -> float | None:
        """Answer with a figure's median, None if it was not measured."""
        figure = self._by_key.get(key)
        return None if figure is None else figure.median
