"""Spans: what they are to the parts of bascule that open them, whoever records them.

Every part looks for the tracer of the work it does in one context variable. Without one it does nothing.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, TypeAlias

from bascule.observe._trace_context import TraceContext, current_trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

__all__ = [
    "AttributeValue",
    "Attributes",
    "Span",
    "SpanKind",
    "Tracer",
    "add_event",
    "begin_span",
    "current_tracer",
    "recorded_first",
    "span",
    "trace_here",
    "traced_by",
    "tracer_variable",
]

AttributeValue: TypeAlias = "str | int | float | bool | Sequence[str]"
Attributes: TypeAlias = "Mapping[str, AttributeValue]"


class SpanKind(enum.IntEnum):
    """Which side of what a span is. The numbers are OpenTelemetry's."""

    INTERNAL = 0
    SERVER = 1
    """It answers a request that came from outside."""
    CLIENT = 2
    """It asks something outside and waits for the answer."""
    PRODUCER = 3
    """It hands over an event that is handled later."""
    CONSUMER = 4
    """It handles such an event."""


class Span(Protocol):
    """One unit of work under way."""

    @property
    def context(self) -> TraceContext:
        """What calls made by this work pass on."""
        ...

    @property
    def recording(self) -> bool:
        """Whether somebody keeps what it is told: if not, tell it nothing that costs."""
        ...

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""
        ...

    def rename(self, name: str) -> None:
        """Change the name, when more is known than at the start."""
        ...

    def event(self, name: str, attributes: Attributes) -> None:
        """Add something that happened now."""
        ...

    def enter(self) -> None:
        """Make it what work in this task, and in those that it starts, belongs to until it ends."""
        ...

    def end(self, failure: BaseException | str | None = None) -> None:
        """Finish it: exactly once, also when the work was cancelled, and in the task that entered it.

        :param failure: why the work counts as failed; None if it does not. An exception is recorded
            where it was raised, not again by each span that it passes
        """
        ...


class Tracer(Protocol):
    """Where spans go. No method may block: they run on the event loop."""

    @property
    def by_parent(self) -> bool:
        """Whether nothing is ever recorded that belongs to a trace which is not sampled."""
        ...

    def current(self) -> TraceContext | None:
        """Where the work in progress stands; None if it belongs to no trace."""
        ...

    def start(
        self,
        name: str,
        parent: TraceContext | None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        *,
        links: Sequence[TraceContext] = (),
        trace_id: str | None = None,
    ) -> Span:
        """Begin a span under ``parent``, or a trace if there is none; decide whether it is recorded.

        :param links: what it has to do with besides
        :param trace_id: of the trace that it begins; None for a random one
        """
        ...

    def event(self, name: str, attributes: Attributes) -> None:
        """Add something that happened now to the span that was entered last."""
        ...


#: The tracer of the work in progress: tasks inherit it from those that start them.
tracer_variable: ContextVar[Tracer | None] = ContextVar("bascule_tracer", default=None)


def current_tracer() -> Tracer | None:
    """Return where spans of the work in progress go; None if nobody records any."""
    return tracer_variable.get()


@contextmanager
def traced_by(tracer: Tracer | None) -> Iterator[None]:
    """Send the spans of all that is done, started and opened within to a tracer; None: to nobody.

    Servers, gateways and buses that are made within keep to it.
    """
    token = tracer_variable.set(tracer)
    try:
        yield
    finally:
        tracer_variable.reset(token)


def trace_here() -> TraceContext | None:
    """Return where the work in progress stands, as its tracer sees it, or else as the wire said."""
    tracer = tracer_variable.get()
    return current_trace() if tracer is None else tracer.current()


def add_event(name: str, attributes: Attributes) -> None:
    """Add something that happened now to the span of the work in progress, if it has one."""
    tracer = tracer_variable.get()
    if tracer is not None:
        tracer.event(name, attributes)


def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    begins: bool = True,
    links: Sequence[TraceContext] = (),
) -> AbstractContextManager[Span]:
    """Put a span around some work.

    >>> with span("price", {"items": 3}) as priced:
    ...     priced.set({"total": total()})

    An exception that leaves it makes it failed; a cancellation does not. Without a tracer, and in a
    trace that is not sampled, it costs next to nothing.

    :param begins: whether it may begin a trace; false for what is of interest only within one
    """
    return _Around(name, attributes, kind, begins, links)


def begin_span(
    name: str,
    attributes: Attributes | None,
    kind: SpanKind,
    *,
    begins: bool = True,
    links: Sequence[TraceContext] = (),
) -> Span:
    """Enter a span as :func:`span` does, for those who know better what counts as a failure."""
    tracer = tracer_variable.get()
    if tracer is None:
        return _NOTHING
    parent = tracer.current()
    if (not begins) if parent is None else (not parent.sampled):
        return _NOTHING
    started = tracer.start(name, parent, kind, attributes, links=links)
    started.enter()
    return started


class _Around:
    __slots__ = ("_attributes", "_begins", "_kind", "_links", "_name", "_span")

    def __init__(
        self,
        name: str,
        attributes: Attributes | None,
        kind: SpanKind,
        begins: bool,
        links: Sequence[TraceContext],
    ) -> None:
        self._name = name
        self._attributes = attributes
        self._kind = kind
        self._begins = begins
        self._links = links
        self._span: Span = _NOTHING

    def __enter__(self) -> Span:
        self._span = begin_span(
            self._name, self._attributes, self._kind, begins=self._begins, links=self._links
        )
        return self._span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._span.end(error if isinstance(error, Exception) else None)


class _Nothing:
    """The span of work that nobody records."""

    recording = False
    context = TraceContext("0" * 32, "0" * 16)

    def set(self, attributes: Attributes) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    def event(self, name: str, attributes: Attributes) -> None:
        pass

    def enter(self) -> None:
        pass

    def end(self, failure: BaseException | str | None = None) -> None:
        pass


_NOTHING = _Nothing()

#: How far back an error's causes are followed.
_MOST_CAUSES = 16

_RECORDED = "__bascule_recorded__"


def recorded_first(error: BaseException) -> bool:
    """Take note that an exception is recorded; tell whether neither it nor its cause was before."""
    known = any(getattr(each, _RECORDED, False) for each in _causes(error))
    setattr(error, _RECORDED, True)
    return not known


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, those in it if it is a group, and what each was raised from."""
    waiting = [error]
    for _ in range(_MOST_CAUSES):
        if not waiting:
            return
        at = waiting.pop()
        yield at
        if at.__cause__ is not None:
            waiting.append(at.__cause__)
        if isinstance(at, BaseExceptionGroup):
            waiting.extend(at.exceptions)
