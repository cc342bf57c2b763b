"""The configuration of a process: layers merged, typed, and swapped as a whole."""

from __future__ import annotations

import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import anyio
import anyio.to_thread

from bascule._backoff import pause_after
from bascule._tasks import owned_tasks
from bascule.config._document import MISSING, Document, check_key, find, merged, replaced
from bascule.config._schema import InvalidError, secrets_in, typed, with_secrets
from bascule.errors import ClosedError, ConfigurationError
from bascule.observe import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from bascule.config._source import Layer, Source

__all__ = ["Changes", "Config", "Problem", "Snapshot"]

T = TypeVar("T")

logger = logging.getLogger("bascule.config")

#: Seconds for which changes are collected before they are looked at.
SETTLE = 0.05

#: Seconds between looks at files with secrets.
SECRETS_EVERY = 5.0

#: Seconds between attempts to watch a source that raised: the first pause, the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0

#: What stands for a secret where people look.
HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """The configuration at one moment.

    :ivar version: 1 for the first one, then one more for each change
    :ivar at: when it was taken, in seconds since 1970
    """

    value: T
    version: int
    at: float


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a source is not taken as it is.

    :ivar key: dotted; empty for the whole source
    :ivar away: whether it cannot be reached, rather than says what cannot be used
    """

    source: str
    key: str
    reason: str
    away: bool = False

    def __str__(self) -> str:
        where = f" {self.key}:" if self.key else ""
        return f"{self.source}:{where} {self.reason}"


@dataclass(slots=True)
class _Level:
    """A source, what it says, and what it said when all was well."""

    source: Source
    heard: bool = False
    document: Document = field(default_factory=dict)
    good: Document | None = None
    #: Why it says nothing that can be read.
    unread: Problem | None = None
    #: Why what it says was not taken.
    rejected: Problem | None = None

    @property
    def problem(self) -> Problem | None:
        return self.unread or self.rejected

    @property
    def best(self) -> Document:
        """What it says; what was good last if that cannot be read."""
        return self.document if self.unread is None else self.good or {}


class Config(Generic[T]):
    """Layers of configuration as one typed value, followed inside of its ``async with``.

    A change is validated, then swapped in as a whole, then told. A source that says what cannot be
    used keeps its last good layer, is logged once, and shows in ``config_invalid``; the others go
    on. Fields may be given by files: ``password_file`` stands for ``password``.

    Entering raises if the configuration cannot be used. If that may be because a source is away, it
    waits for it, and says so; if the others are enough, it starts without it.

    :param schema: a msgspec Struct, a dataclass, a TypedDict or a pydantic model
    :param sources: a later one goes before an earlier one
    :param validate: checks more than types; raises ValueError with the reason
    :param patience: seconds for which a source that says nothing is waited for
    :raises ConfigurationError: if there is no source, or two have the same name
    """

    def __init__(
        self,
        schema: type[T],
        sources: Sequence[Source],
        *,
        validate: Callable[[T], None] | None = None,
        patience: float = 5.0,
    ) -> None:
        names = [each.name for each in sources]
        if not names or len(set(names)) != len(names):
            message = f"config sources {names}: give at least one, and each a name of its own"
            raise ConfigurationError(message)
        self._schema = schema
        self._validate = validate
        self._patience = patience
        self._levels = [_Level(each) for each in sources]
        self._last = self._levels[-1]
        self._snapshot: Snapshot[T] | None = None
        self._document: Document = {}
        self._shown: Document = {}
        self._secrets: dict[tuple[str, ...], str] = {}
        self._checked_at = 0.0
        self._dirty = anyio.Event()
        self._changed = anyio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """:raises ConfigurationError: if the configuration cannot be used"""
        async with AsyncExitStack() as stack:
            self._limiter = anyio.CapacityLimiter(1)
            tasks = await stack.enter_async_context(owned_tasks())
            stack.callback(tasks.cancel_scope.cancel)
            for level in self._levels:
                tasks.start_soon(self._follow, level, name=f"config {level.source.name}")
            await self._load()
            tasks.start_soon(self._keep, name="config")
            tasks.start_soon(self._look_at_secrets, name="config secrets")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(exc_type, exc, traceback)

    @property
    def snapshot(self) -> Snapshot[T]:
        """The value in force, with its version.

        :raises ClosedError: before it was entered
        """
        if self._snapshot is None:
            message = "the configuration is not loaded: use it inside its `async with`"
            raise ClosedError(message)
        return self._snapshot

    @property
    def current(self) -> T:
        """The value in force. It never changes: ask again, or follow :meth:`changes`.

        :raises ClosedError: before it was entered
        """
        return self.snapshot.value

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong now, a source each."""
        return tuple(each.problem for each in self._levels if each.problem is not None)

    def get(self, key: str, default: Any = None) -> Any:
        """What the merged document has at a dotted key; secrets from files are not shown.

        :raises ConfigurationError: if the key cannot be one
        """
        found = find(self._shown, check_key(key))
        return default if found is MISSING else found

    def changes(self) -> Changes[T]:
        """Follow it: ``async for snapshot in config.changes()``, beginning with the next change. Who is slow gets the last one only."""
        return Changes(self)

    def samples(self) -> Iterable[Sample]:
        """For :meth:`bascule.observe.Metrics.add_samples`."""
        for level in self._levels:
            source = level.source.name
            invalid = level.problem is not None and not level.problem.away
            away = level.problem is not None and level.problem.away
            yield Sample.declared("config_invalid", invalid, source=source)
            yield Sample.declared("config_source_up", not away, source=source)
        yield Sample.declared("config_last_reload_success_timestamp_seconds", self._checked_at)
        version = 0 if self._snapshot is None else self._snapshot.version
        yield Sample.declared("config_version", version)

    async def _load(self) -> None:
        with anyio.move_on_after(self._patience):
            while not all(each.heard for each in self._levels):
                await self._next_change()
        while True:
            broken = [str(each.unread) for each in self._levels if each.heard and each.unread]
            problem = "; ".join(broken) or await self._rebuild()
            if problem is None:
                return
            silent = [each for each in self._levels if not each.heard]
            if broken or not silent:
                raise ConfigurationError(f"configuration: {problem}")
            waited = {each.source.name: str(each.unread or "it says nothing") for each in silent}
            extra = {"sources": waited, "reason": str(problem)}
            logger.warning("waiting for configuration", extra=extra)
            await self._next_change()

    async def _next_change(self) -> None:
        self._dirty = anyio.Event()
        await self._dirty.wait()

    async def _follow(self, level: _Level) -> None:
        failures = 0
        while True:
            try:
                async with level.source.watch() as layers:
                    async for layer in layers:
                        failures = 0
                        self._take(level, layer)
                return
            except Exception as error:  # noqa: BLE001 - whatever a source meets
                failures += 1
                reason = f"{type(error).__name__}: {error}"
                self._mark(level, unread=Problem(level.source.name, "", reason, away=True))
            await anyio.sleep(pause_after(failures, FIRST_PAUSE, LONGEST_PAUSE))

    def _take(self, level: _Level, layer: Layer) -> None:
        if layer.document is None:
            reason = layer.problem or "it holds nothing"
            problem = Problem(level.source.name, layer.key, reason, away=layer.away)
            self._mark(level, unread=problem)
        else:
            level.document = layer.document
            self._mark(level, rejected=level.rejected)
        level.heard = level.heard or not layer.away
        self._last = level
        self._dirty.set()

    async def _keep(self) -> None:
        while True:
            await self._dirty.wait()
            await anyio.sleep(SETTLE)
            self._dirty = anyio.Event()
            await self._rebuild()

    async def _look_at_secrets(self) -> None:
        while True:
            await anyio.sleep(SECRETS_EVERY)
            if self._secrets:
                self._dirty.set()

    async def _rebuild(self) -> Problem | None:
        """Make a value of what the sources say, without what cannot be used: why there is none, or None."""
        taken = [each.best for each in self._levels]
        rejected: dict[int, Problem] = {}
        while True:
            document: Document = {}
            for each in taken:
                document = merged(document, each)
            try:
                value, whole = await self._build(document)
            except InvalidError as error:
                index = self._guilty(taken, error.key)
                level = self._levels[index]
                problem = Problem(level.source.name, error.key, error.reason)
                known = index in rejected
                rejected.setdefault(index, problem)
                if known or self._snapshot is None:
                    self._reject(rejected)
                    return problem
                taken[index] = level.good or {}
            else:
                break
        self._reject(rejected)
        for index, level in enumerate(self._levels):
            level.good = taken[index]
        self._checked_at = time.time()
        self._swap(value, whole)
        return None

    async def _build(self, document: Document) -> tuple[T, Document]:
        """:raises InvalidError: if it does not fit"""
        self._secrets = secrets_in(document, self._schema)
        if self._secrets:
            read = partial(with_secrets, document, self._secrets)
            document = await anyio.to_thread.run_sync(read, limiter=self._limiter)
        value = typed(document, self._schema)
        if self._validate is not None:
            try:
                self._validate(value)
            except ValueError as error:
                raise InvalidError("", str(error)) from error
        return value, document

    def _swap(self, value: T, document: Document) -> None:
        before = self._snapshot
        if before is not None and document == self._document:
            return
        self._document = self._shown = document
        for place in self._secrets:
            self._shown = replaced(self._shown, place, HIDDEN)
        version = 1 if before is None else before.version + 1
        self._snapshot = Snapshot(value, version, time.time())
        logger.info("configuration in force", extra={"version": version})
        self._changed.set()
        self._changed = anyio.Event()

    def _guilty(self, taken: Sequence[Document], key: str) -> int:
        """Whose value is at a key, or the nearest above it; else, who changed last."""
        parts = tuple(key.replace("[", ".").replace("]", "").split(".")) if key else ()
        for depth in range(len(parts), 0, -1):
            for index in reversed(range(len(taken))):
                if find(taken[index], parts[:depth]) is not MISSING:
                    return index
        return self._levels.index(self._last)

    def _reject(self, rejected: dict[int, Problem]) -> None:
        for index, level in enumerate(self._levels):
            self._mark(level, unread=level.unread, rejected=rejected.get(index))

    def _mark(
        self, level: _Level, *, unread: Problem | None = None, rejected: Problem | None = None
    ) -> None:
        before = level.problem
        level.unread, level.rejected = unread, rejected
        problem = level.problem
        if problem is None and before is not None:
            logger.info("configuration source is well", extra={"source": level.source.name})
        elif problem is not None and problem != before:
            said = "configuration source is away" if problem.away else "configuration is invalid"
            extra = {"source": problem.source, "key": problem.key, "reason": problem.reason}
            logger.log(logging.WARNING if problem.away else logging.ERROR, said, extra=extra)


class Changes(Generic[T]):
    """The snapshots of a configuration from now on; each is the latest when it is taken."""

    def __init__(self, config: Config[T]) -> None:
        self._config = config
        self._seen = config.snapshot.version

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Snapshot[T]:
        """Wait for a change; cancelling that loses none."""
        await anyio.lowlevel.checkpoint()
        while self._config.snapshot.version == self._seen:
            await self._config._changed.wait()
        snapshot = self._config.snapshot
        self._seen = snapshot.version
        return snapshot
