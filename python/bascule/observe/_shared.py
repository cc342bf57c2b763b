"""One scrape for several processes of a service: each keeps its numbers in a folder that all share.

Counters must never go backwards, whichever process is asked: so each answer is made of what
stands in the folder alone, after the process that answers has written its own. What a process
that died has counted stays; what it had open does not.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from bascule.observe._catalog import FAMILIES
from bascule.observe._families import merge_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.metrics_core import Metric

__all__ = ["SharedFolder"]

#: Name, labels, value, and an exemplar: its labels, value and time.
_Sample: TypeAlias = tuple[
    str, dict[str, str], float, tuple[dict[str, str], float, float | None] | None
]


class _Family(msgspec.Struct, array_like=True):
    name: str
    type: str
    help: str
    samples: list[_Sample]


class _Snapshot(msgspec.Struct):
    """What one process has counted, or all those that ended.

    :ivar folded: names of the snapshots that went into it
    """

    pid: int
    families: list[_Family]
    folded: list[str] = []


#: Types whose samples add up.
_ADDED = {"counter", "histogram"}

#: What all processes that ended have counted. Its lock is held by whoever reads or folds.
_ENDED = "bascule-ended"


class SharedFolder:
    """A process's part in a folder: from its making to :meth:`close`.

    All methods but the first block, for as long as it takes to read the files: call them in a
    thread.

    :param folder: made if it is not there. Empty it before the first process starts: it says what
        was counted since then
    :raises OSError: if it cannot be made or written to
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._name = f"bascule-{os.getpid()}-{secrets.token_hex(4)}"
        # The system gives the lock back when the process is gone, however it went.
        self._alive = _locked(self._folder / f"{self._name}.lock", fcntl.LOCK_EX)
        self._totals: dict[str, dict[_Labels, _Total]] = {}
        self._followed = 0

    def write(self, families: Iterable[Metric]) -> None:
        """Leave what this process has counted.

        What a part counts begins anew when it is opened anew, and is not told any more when it is
        closed. Here it goes on: a sum with other processes' must not fall.
        """
        kept: dict[str, _Family] = {}
        for each in map(_kept, families):
            kept.setdefault(each.name, each)
            if kept[each.name] is not each:
                kept[each.name].samples += each.samples
        for name, totals in self._totals.items():
            head = next(iter(totals.values())).head
            kept.setdefault(name, _Family(name, head.type, head.help, []))
        for family in kept.values():
            if family.type in _ADDED:
                family.samples = self._continued(family)
        self._put(self._name, _Snapshot(os.getpid(), list(kept.values())))

    def _continued(self, family: _Family) -> list[_Sample]:
        """All that was counted of a family; what is too much to follow, as it is told."""
        told: dict[_Labels, list[_Sample]] = {}
        for sample in family.samples:
            told.setdefault(_labels(sample), []).append(sample)
        totals = self._totals.get(family.name, {})
        lost: list[_Sample] = []
        for labels, samples in told.items():
            if labels in totals:
                totals[labels].take(samples)
            elif self._followed < MOST_SERIES:
                self._followed += 1
                totals[labels] = _Total(family, samples)
            else:
                lost += samples
        if totals:
            self._totals[family.name] = totals
        return [*(each for total in totals.values() for each in total.samples()), *lost]

    def read(self) -> list[Metric]:
        """Put together what all processes have counted."""
        merged = _Merging()
        with self._exclusive():
            ended = self._fold()
            merged.add(ended, pid=None)
            for path in self._snapshots():
                found = _read(path)
                if found is not None:
                    merged.add(found, pid=str(found.pid))
        return merged.families()

    def close(self) -> None:
        """End this process's part; what it wrote last stays."""
        os.close(self._alive)

    def _snapshots(self) -> list[Path]:
        found = self._folder.glob("bascule-*-*.msgpack")
        return sorted(found)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        lock = _locked(self._folder / f"{_ENDED}.lock", fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(lock)

    def _fold(self) -> _Snapshot:
        """Add what processes that are gone have counted to that of those before them."""
        ended = _read(self._folder / f"{_ENDED}.msgpack") or _Snapshot(0, [])
        gone = [path for path in self._snapshots() if self._is_gone(path)]
        # A process that died while it did this has folded some that are still there.
        fresh = [path for path in gone if path.stem not in ended.folded]
        if fresh:
            merged = _Merging()
            for each in (ended, *(_read(path) for path in fresh)):
                if each is not None:
                    merged.add(each, pid=None)
            ended = _Snapshot(
                0, [_kept(each) for each in merged.families()], [path.stem for path in gone]
            )
            self._put(_ENDED, ended)
        for path in gone:
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
        return ended

    def _is_gone(self, path: Path) -> bool:
        if path.stem == self._name:
            return False
        try:
            os.close(_locked(path.with_suffix(".lock"), fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def _put(self, name: str, snapshot: _Snapshot) -> None:
        made = self._folder / f"{name}.{secrets.token_hex(4)}.tmp"
        made.write_bytes(msgspec.msgpack.encode(snapshot))
        made.replace(self._folder / f"{name}.msgpack")


#: Sets of labels of counters and histograms that are followed: more are taken as they are told.
MOST_SERIES = 20_000

#: Names and values of labels, but for a bucket's bound.
_Labels: TypeAlias = tuple[tuple[str, str], ...]


def _labels(sample: _Sample) -> _Labels:
    return tuple(sorted(item for item in sample[1].items() if item[0] != "le"))


class _Total:
    """A counter, or all buckets of a histogram, since this process began."""

    def __init__(self, head: _Family, samples: list[_Sample]) -> None:
        self.head = head
        self._before: dict[tuple[str, str | None], float] = {}
        self._told = {_key(each): each for each in samples}

    def take(self, samples: list[_Sample]) -> None:
        """Go on with what is told now; if any of it fell, all of it began anew."""
        told = {_key(each): each for each in samples}
        fell = any(key in told and told[key][2] < last[2] for key, last in self._told.items())
        if fell:
            for key, last in self._told.items():
                self._before[key] = self._before.get(key, 0.0) + last[2]
        self._told = told

    def samples(self) -> list[_Sample]:
        """All that was counted."""
        return [
            (name, labels, value + self._before.get(key, 0.0), exemplar)
            for key, (name, labels, value, exemplar) in self._told.items()
        ]


def _key(sample: _Sample) -> tuple[str, str | None]:
    return sample[0], sample[1].get("le")


class _Merging:
    """Families of several processes, put together by their kind."""

    def __init__(self) -> None:
        self._heads: dict[str, _Family] = {}
        self._samples: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], _Sample]] = {}

    def add(self, snapshot: _Snapshot, *, pid: str | None) -> None:
        """Take what a process has counted.

        :param pid: None if it has ended: then only what adds up counts
        """
        for family in snapshot.families:
            self._heads.setdefault(family.name, family)
            known = self._samples.setdefault(family.name, {})
            declared = FAMILIES.get(family.name)
            for name, labels, value, exemplar in family.samples:
                if name.endswith("_created"):
                    continue
                shown = labels
                if family.type in _ADDED:
                    kind = "sum"
                elif pid is None:
                    continue
                elif declared is None:
                    kind, shown = "own", {**labels, "pid": pid}
                else:
                    kind = declared.kind
                key = (name, tuple(sorted(shown.items())))
                before = known.get(key)
                if before is None:
                    known[key] = (name, shown, value, exemplar)
                else:
                    total = merge_numbers(kind, before[2], value)
                    known[key] = (name, shown, total, _newer(before[3], exemplar))

    def families(self) -> list[Metric]:
        """Give what came of them; families without a sample are left out."""
        from prometheus_client.metrics_core import Metric
        from prometheus_client.samples import Exemplar

        made = []
        for name, head in self._heads.items():
            samples = self._samples[name].values()
            if not samples:
                continue
            metric = Metric(name, head.help, head.type)
            for sample, labels, value, exemplar in samples:
                kept = None if exemplar is None else Exemplar(*exemplar)
                metric.add_sample(sample, labels, value, exemplar=kept)
            made.append(metric)
        return made


_Exemplar: TypeAlias = "tuple[dict[str, str], float, float | None] | None"


def _newer(one: _Exemplar, other: _Exemplar) -> _Exemplar:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other, key=lambda each: each[2] or 0.0)


def _kept(metric: Metric) -> _Family:
    samples: list[_Sample] = []
    for each in metric.samples:
        exemplar = each.exemplar
        kept: _Exemplar = None
        if exemplar is not None:
            at = None if exemplar.timestamp is None else float(exemplar.timestamp)
            kept = (exemplar.labels, exemplar.value, at)
        samples.append((each.name, each.labels, float(each.value), kept))
    return _Family(metric.name, metric.type, metric.documentation, samples)


def _locked(path: Path, how: int) -> int:
    """Open a file and lock it; the lock lives as long as the descriptor.

    :raises BlockingIOError: if another process has it and ``how`` says not to wait
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read(path: Path) -> _Snapshot | None:
    """None if there is none, or what is there is of another version."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=_Snapshot)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
