"""Runs a saga again and again, kills its process wherever that could hurt, and looks at what is left."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import anyio
import msgspec

from bascule.errors import ConfigurationError
from bascule.saga._check_life import Answer, Life, log_tables
from bascule.sql import Database

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from bascule.saga._definition import Saga
    from bascule.saga._records import SagaRun

__all__ = ["CheckReport", "SagaCheck", "Violation", "check_saga"]

ContextT = TypeVar("ContextT")


@dataclass(frozen=True, slots=True)
class SagaCheck(Generic[ContextT]):
    """What :func:`check_saga` tries.

    :ivar saga: to be run
    :ivar context: to run it with
    :ivar invariant: looks at the world when the run has ended; raises, such as AssertionError, if it is
        not as it should be. Given the run: what is right depends on whether it is completed or undone
    """

    saga: Saga[ContextT]
    context: ContextT
    invariant: Callable[[SagaRun], Awaitable[None]]


CheckOpener: TypeAlias = Callable[[Path], AbstractAsyncContextManager[SagaCheck[Any]]]
"""Opens the world of a check: a new one if the folder is empty, else the one that was left there."""


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A run that did not end as it should.

    :ivar trial: names it, to be tried alone
    :ivar failing: what was made to fail
    :ivar kills: where its processes were killed, one after the other
    :ivar problem: what is wrong
    :ivar journal: the run's, if it was begun
    """

    trial: str
    failing: str
    kills: tuple[str, ...]
    problem: str
    journal: tuple[str, ...] = ()


class CheckReport(msgspec.Struct, kw_only=True):
    """What a check found.

    :ivar saga: its name
    :ivar trials: runs that were tried
    :ivar kills: processes that were killed
    :ivar outcomes: runs by how they ended: ``completed``, ``undone`` or ``parked``
    :ivar points: places at which a process was killed, and how often
    :ivar violations: what went wrong
    :ivar seconds: that it took
    """

    saga: str = ""
    trials: int = 0
    kills: int = 0
    outcomes: dict[str, int] = {}
    points: dict[str, int] = {}
    violations: list[Violation] = []
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong."""
        return not self.violations


@dataclass
class _Trial:
    """A failure, and where to kill: the n-th process of the run at the n-th of these points."""

    failing: str
    kills: tuple[int, ...] = ()
    labels: list[str] = field(default_factory=list)
    folder: Path | None = None
    life: int = 0
    pid: int = 0
    started: float = 0.0

    @property
    def name(self) -> str:
        return "@".join([self.failing, *map(str, self.kills)])


def check_saga(
    opener: CheckOpener,
    *,
    depth: int = 1,
    jobs: int = 2,
    limit: int | None = None,
    only: str | None = None,
    database: str | None = None,
    backend: str = "asyncio",
    timeout: float = 30.0,
    progress: Callable[[CheckReport], None] = lambda _report: None,
) -> CheckReport:
    """Run a saga, killing its process at every write of its log and every reply of a step.

    It is run whole; with each step failing before it has done anything; and with each step failing
    after that, with every compensation's first answer lost as well. For each of these, it is run once
    for each point at which a kill could hurt: before and after each transaction of the log, and when an
    action or a compensation has returned. A new process, an hour later by its clock, goes on from what
    is left; the invariant is looked at in the end.

    Each process is a fork of this one, so call it from a process that has one thread, and no event loop.

    :param opener: an async context manager, given a folder that outlives the processes of a run
    :param depth: kills in a row; 2 tries a kill at each point of the recovery from each kill
    :param jobs: processes at a time
    :param limit: trials at most, spread evenly; None for all
    :param only: the name of one trial, as a violation gives it
    :param database: URL for the log; None for SQLite in the folder
    :param backend: ``asyncio`` or ``trio``
    :param timeout: seconds that a process may take
    :param progress: called after each trial
    :raises ConfigurationError: if processes cannot be forked here, or the saga does not run to its end
    """
    if not hasattr(os, "fork"):
        raise ConfigurationError("a saga can be checked where processes fork: not on this system")
    check = _Check(opener, jobs, database, backend, timeout, progress)
    started = time.monotonic()
    _make_ready(database, backend)
    try:
        with tempfile.TemporaryDirectory(prefix="bascule-saga-") as root:
            check.root = Path(root)
            check.run(depth, limit, only)
    finally:
        gc.unfreeze()
    check.report.seconds = time.monotonic() - started
    return check.report


def _make_ready(database: str | None, backend: str) -> None:
    """Do once what each process would do anew, imports above all, and keep the garbage collector from visiting it.

    Hundreds of processes spend more than half of their time on that otherwise.
    """
    anyio.run(anyio.sleep, 0, backend=backend)
    for url in {database, "sqlite:///unused"} - {None}:
        Database(str(url))  # Its driver; nothing connects.
    log_tables()
    gc.collect()
    gc.freeze()


class _Check:
    root: Path

    def __init__(
        self,
        opener: CheckOpener,
        jobs: int,
        database: str | None,
        backend: str,
        timeout: float,
        progress: Callable[[CheckReport], None],
    ) -> None:
        self._opener = opener
        self._jobs = jobs
        self._database = database
        self._backend = backend
        self._timeout = timeout
        self._progress = progress
        self._folders = 0
        self.report = CheckReport()

    def run(self, depth: int, limit: int | None, only: str | None) -> None:
        if only is not None:
            failing, *kills = only.split("@")
            self._try([_Trial(failing, tuple(map(int, kills)))])
            return
        # The first run tells the steps, the others at how many points each can be killed.
        first = self._try([_Trial("nothing")])[0][1]
        if first is None or not first.steps:
            raise ConfigurationError(
                f"the saga does not run to its end: {self.report.violations[-1].problem}"
            )
        self.report.saga = first.saga
        whole = self._try([_Trial(failing) for failing in first.failures])
        survivors = [
            (trial, answer) for trial, answer in [(_Trial("nothing"), first), *whole] if answer
        ]
        for _ in range(depth):
            trials = [
                _Trial(trial.failing, (*trial.kills, point))
                for trial, answer in survivors
                for point in range(answer.points)
            ]
            if limit is not None and len(trials) > limit:
                trials = [trials[index * len(trials) // limit] for index in range(limit)]
            survivors = [(trial, answer) for trial, answer in self._try(trials) if answer]

    def _try(self, trials: Iterable[_Trial]) -> list[tuple[_Trial, Answer | None]]:
        waiting = deque(trials)
        running: dict[Connection, _Trial] = {}
        ended: list[tuple[_Trial, Answer | None]] = []
        try:
            while waiting or running:
                while waiting and len(running) < self._jobs:
                    self._start(waiting.popleft(), running)
                self._take(running, ended)
        finally:
            for pipe, trial in running.items():
                os.kill(trial.pid, signal.SIGKILL)
                os.waitpid(trial.pid, 0)
                pipe.close()
        return ended

    def _start(self, trial: _Trial, running: dict[Connection, _Trial]) -> None:
        if trial.folder is None:
            self._folders += 1
            trial.folder = self.root / str(self._folders)
            trial.folder.mkdir()
        kill = trial.kills[trial.life] if trial.life < len(trial.kills) else None
        life = Life(
            folder=trial.folder,
            database=self._database,
            saga_id=f"{self.root.name}-{trial.folder.name}",
            failing=trial.failing,
            number=trial.life,
            kill=kill,
        )
        answers, pipe = Pipe(duplex=False)
        trial.started = time.monotonic()
        # What is buffered must not be written twice.
        sys.stdout.flush()
        sys.stderr.flush()
        trial.pid = os.fork()
        if trial.pid == 0:
            answers.close()
            life.live(self._opener, pipe, self._backend)
        pipe.close()
        running[answers] = trial

    def _take(
        self, running: dict[Connection, _Trial], ended: list[tuple[_Trial, Answer | None]]
    ) -> None:
        """Take what one process or more have to say."""
        ready = wait(list(running), timeout=0.2)
        for pipe, trial in list(running.items()):
            late = time.monotonic() > trial.started + self._timeout
            if pipe not in ready and not late:
                continue
            if late and pipe not in ready:
                os.kill(trial.pid, signal.SIGKILL)
            answer = _last_words(pipe, trial)
            _, status = os.waitpid(trial.pid, 0)
            del running[pipe]
            pipe.close()
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            if killed and not late and answer is None and trial.life < len(trial.kills):
                self.report.kills += 1
                trial.life += 1
                self._start(trial, running)
                continue
            problem = None
            if answer is None:
                how = f"did not end within {self._timeout:g} s" if late else f"died ({status})"
                problem = f"process {trial.life + 1} of the run {how}"
            self._end(trial, answer, problem)
            ended.append((trial, answer))

    def _end(self, trial: _Trial, answer: Answer | None, problem: str | None) -> None:
        report = self.report
        report.trials += 1
        if answer is not None:
            report.outcomes = dict(Counter(report.outcomes) + Counter([answer.outcome]))
            problem = answer.problem
        report.points = dict(Counter(report.points) + Counter(trial.labels))
        if problem is not None:
            report.violations.append(
                Violation(
                    trial=trial.name,
                    failing=trial.failing,
                    kills=tuple(trial.labels),
                    problem=problem,
                    journal=() if answer is None else answer.journal,
                )
            )
        if trial.folder is not None:
            shutil.rmtree(trial.folder, ignore_errors=True)
        self._progress(report)


def _last_words(pipe: Connection, trial: _Trial) -> Answer | None:
    """Read what a process has sent: where it is to be killed, and what it found in the end."""
    answer = None
    try:
        while True:
            message: Sequence[Any] = msgspec.json.decode(pipe.recv_bytes())
            if message[0] == "kill":
                trial.labels.append(message[1])
            else:
                answer = msgspec.convert(message[1], Answer)
    except EOFError:
        return answer
