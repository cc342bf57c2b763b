"""Several processes' metrics in one folder: how they become one, and that sums never fall."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from bascule.observe._shared import SharedFolder

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

LAG = "event_loop_lag_seconds"


def counter(value: float, **labels: str) -> CounterMetricFamily:
    family = CounterMetricFamily("calls", "Calls", labels=tuple(labels))
    family.add_metric(tuple(labels.values()), value)
    return family


def gauge(metric: str, value: float, /, **labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric, "A gauge", labels=tuple(labels))
    family.add_metric(tuple(labels.values()), value)
    return family


def histogram(*buckets: int) -> HistogramMetricFamily:
    family = HistogramMetricFamily(LAG, "Lag")
    counts = [sum(buckets[: n + 1]) for n in range(len(buckets))]
    bounds = ["0.1", "1.0", "+Inf"]
    family.add_metric((), list(zip(bounds, counts, strict=True)), float(sum(buckets)))
    return family


def values(families: list[Metric]) -> dict[str, float]:
    """By name and labels as an exposition has them; ``pid`` only says that there is one."""
    found = {}
    for sample in (sample for family in families for sample in family.samples):
        labels = {k: v if k != "pid" else "*" for k, v in sample.labels.items()}
        shown = "".join(f"{{{k}={v}}}" for k, v in sorted(labels.items()))
        found[sample.name + shown] = sample.value
    return found


def test_each_kind_is_put_together_by_its_rule(tmp_path: Path) -> None:
    one, other = SharedFolder(tmp_path), SharedFolder(tmp_path)
    one.write(
        [
            counter(3, kind="a"),
            histogram(1, 2, 0),
            gauge("saga_unfinished", 5, saga="order", state="parked"),
            gauge("event_loop_tasks", 10),
            gauge("app_ready", 0),
            gauge("circuit_breaker_state", 2, name="x"),
            gauge("unknown_gauge", math.inf),
        ]
    )
    other.write(
        [
            counter(4, kind="a"),
            counter(1, kind="b"),
            histogram(0, 1, 1),
            gauge("saga_unfinished", 4, saga="order", state="parked"),
            gauge("event_loop_tasks", 11),
            gauge("app_ready", 1),
            gauge("circuit_breaker_state", 1, name="x"),
        ]
    )
    assert values(one.read()) == {
        "calls_total{kind=a}": 7,
        "calls_total{kind=b}": 1,
        LAG + "_bucket{le=0.1}": 1,
        LAG + "_bucket{le=1.0}": 4,
        LAG + "_bucket{le=+Inf}": 5,
        LAG + "_count": 5,
        LAG + "_sum": 5,
        "saga_unfinished{saga=order}{state=parked}": 5,
        "event_loop_tasks": 21,
        "app_ready": 0,
        "circuit_breaker_state{name=x}": 1,
        "unknown_gauge{pid=*}": math.inf,
    }
    assert values(other.read()) == values(one.read())
    one.close()
    other.close()


def test_what_ended_keeps_its_counts_and_nothing_else(tmp_path: Path) -> None:
    lives, ends = SharedFolder(tmp_path), SharedFolder(tmp_path)
    lives.write([counter(1), gauge("event_loop_tasks", 1)])
    ends.write([counter(10), histogram(1, 1, 1), gauge("event_loop_tasks", 5)])
    ends.close()
    expected = {"calls_total": 11, "event_loop_tasks": 1}
    for _ in range(3):
        found = values(lives.read())
        assert expected.items() <= found.items()
        assert found[LAG + "_count"] == 3
    left = {path.name for path in tmp_path.iterdir() if path.suffix == ".msgpack"}
    assert len(left) == 2, "what ended is in one file, however many that were"
    lives.close()


def test_who_died_while_it_folded_has_folded_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives, ends = SharedFolder(tmp_path), SharedFolder(tmp_path)
    ends.write([counter(10)])
    ends.close()
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError("died")))
        with pytest.raises(OSError, match="died"):
            lives.read()
    for _ in range(2):
        assert values(lives.read()) == {"calls_total": 10}
    lives.close()


def test_a_file_of_another_kind_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "bascule-1-x.msgpack").write_bytes(b"\xc1 no snapshot")
    (tmp_path / "counter_1.db").write_bytes(b"of prometheus-client")
    lives = SharedFolder(tmp_path)
    lives.write([counter(1)])
    assert values(lives.read()) == {"calls_total": 1}
    lives.close()


@settings(max_examples=25, stateful_step_count=30)
class Folder(RuleBasedStateMachine):
    """Processes come, count, begin anew, close parts, end and are asked: the model keeps every sum."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.running: list[tuple[SharedFolder, list[int] | None]] = []
        self.counted = [0, 0, 0]
        self.last: dict[str, float] = {}

    @initialize()
    def begin(self) -> None:
        self.start()

    @rule()
    def start(self) -> None:
        if len(self.running) < 4:
            self.running.append((SharedFolder(self.folder.name), [0, 0, 0]))

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        counts=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
        anew=st.booleans(),
        told=st.booleans(),
    )
    def count(self, data: st.DataObject, counts: tuple[int, ...], anew: bool, told: bool) -> None:
        """Count, then write; parts that begin anew do so once their last counts were written."""
        at = data.draw(st.integers(0, len(self.running) - 1))
        shared, before = self.running[at]
        if not told:
            shared.write([])
            return
        if anew or before is None:
            # Whatever began anew and has come further than before cannot be told from what went on:
            # begin with nothing, as parts do.
            shared.write([histogram(0, 0, 0)])
            before = [0, 0, 0]
        now = [a + b for a, b in zip(before, counts, strict=True)]
        self.counted = [a + b for a, b in zip(self.counted, counts, strict=True)]
        shared.write([histogram(*now)])
        self.running[at] = (shared, now)

    @precondition(lambda self: len(self.running) > 1)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.running) - 1))
        self.running.pop(at)[0].close()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        shared, _ = data.draw(st.sampled_from(self.running))
        found = values(shared.read())
        for name, value in self.last.items():
            assert found[name] >= value, name
        self.last = found
        if sum(self.counted):
            low, middle, high = self.counted
            assert found[LAG + "_bucket{le=0.1}"] == low
            assert found[LAG + "_bucket{le=1.0}"] == low + middle
            assert found[LAG + "_count"] == low + middle + high

    @invariant()
    def files_are_few(self) -> None:
        snapshots = list(Path(self.folder.name).glob("*.msgpack"))
        assert len(snapshots) <= 60

    def teardown(self) -> None:
        for shared, _ in self.running:
            shared.close()
        self.folder.cleanup()


TestFolder = Folder.TestCase
