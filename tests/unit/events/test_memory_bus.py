"""The in-process bus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest
from opentelemetry.trace import SpanKind
from tests.tracing import exceptions_of, is_child, recorded

from bascule.errors import ClosedError
from bascule.events import Event, MemoryEventBus, Redelivery, Topic
from bascule.observe import TraceContext, current_trace, span, trace_variable

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio


class UserCreated(msgspec.Struct, frozen=True):
    user_id: str


USER_CREATED = Topic("user.created", UserCreated)
OTHER = Topic("other", UserCreated)


def created(user: str) -> Event[UserCreated]:
    return USER_CREATED.event(user, UserCreated(user))


async def test_every_subscriber_gets_its_topics_events_in_order() -> None:
    first: list[str] = []
    second: list[str] = []

    async def to_first(event: Event[UserCreated]) -> None:
        first.append(event.payload.user_id)

    async def to_second(event: Event[UserCreated]) -> None:
        second.append(event.key)

    async with MemoryEventBus() as bus:
        bus.subscribe(USER_CREATED, to_first, name="first")
        bus.subscribe(USER_CREATED, to_second, name="second")
        for number in range(10):
            await bus.publish(created(str(number)))
            await bus.publish(OTHER.event("x", UserCreated("x")))
    assert first == second == [str(number) for number in range(10)]


async def test_a_full_queue_makes_the_publisher_wait() -> None:
    entered, release = anyio.Event(), anyio.Event()
    handled: list[str] = []

    async def slow(event: Event[UserCreated]) -> None:
        entered.set()
        await release.wait()
        handled.append(event.key)

    async with MemoryEventBus(queue_size=1) as bus:
        bus.subscribe(USER_CREATED, slow, name="slow")
        await bus.publish(created("handling"))
        await entered.wait()
        await bus.publish(created("queued"))
        with anyio.move_on_after(0) as scope:
            await bus.publish(created("refused"))
        assert scope.cancelled_caught
        release.set()
    assert handled == ["handling", "queued"]


async def test_a_handler_that_raises_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[str] = []

    async def bad(event: Event[UserCreated]) -> None:
        raise ValueError(event.key)

    async def good(event: Event[UserCreated]) -> None:
        seen.append(event.key)

    async with MemoryEventBus(redelivery=Redelivery(attempts=3, first=0.0)) as bus:
        bus.subscribe(USER_CREATED, bad, name="bad")
        bus.subscribe(USER_CREATED, good, name="good")
        await bus.publish(created("a"))
        await bus.publish(created("b"))
    assert seen == ["a", "b"]
    assert caplog.text.count("bad could not handle user.created") == 6
    assert caplog.text.count("Traceback") == 2, "once an event"
    of_bad = bus.stats.subscriber("user.created", "bad")
    assert (of_bad.handled, of_bad.retried, of_bad.dead_lettered) == (0, 4, 2)
    assert bus.stats.subscriber("user.created", "good").handled == 2


async def test_a_handler_that_recovers_handles_the_event_before_the_next() -> None:
    seen: list[str] = []

    async def flaky(event: Event[UserCreated]) -> None:
        seen.append(event.key)
        if len(seen) < 3:
            raise ValueError("not yet")

    async with MemoryEventBus(redelivery=Redelivery(attempts=3, first=0.0)) as bus:
        bus.subscribe(USER_CREATED, flaky, name="flaky")
        await bus.publish(created("a"), created("b"))
    assert seen == ["a", "a", "a", "b"]


async def test_a_batch_that_fails_comes_again_one_by_one() -> None:
    calls: list[str] = []
    entered, release = anyio.Event(), anyio.Event()

    async def handle(events: Sequence[Event[UserCreated]]) -> None:
        entered.set()
        await release.wait()
        calls.append("".join(event.key for event in events))
        if any(event.key == "c" for event in events):
            raise ValueError("c is bad")

    async with MemoryEventBus(redelivery=Redelivery(attempts=2, first=0.0)) as bus:
        bus.subscribe_batches(USER_CREATED, handle, name="batches", size=3)
        await bus.publish(created("a"))
        await entered.wait()
        await bus.publish(*(created(key) for key in "bcde"))
        release.set()
    assert calls == ["a", "bcd", "b", "c", "c", "d", "e"]
    stats = bus.stats.subscriber("user.created", "batches")
    assert (stats.handled, stats.dead_lettered) == (4, 1)


async def test_a_handler_works_in_the_trace_of_the_event() -> None:
    seen: list[TraceContext | None] = []
    here = TraceContext.root(sampled=True)._replace(state="vendor=1")

    async def handle(event: Event[UserCreated]) -> None:
        seen.append(current_trace())

    async with MemoryEventBus() as bus:
        bus.subscribe(USER_CREATED, handle, name="traced")
        token = trace_variable.set(here)
        await bus.publish(created("a"))
        trace_variable.reset(token)
        await bus.publish(created("b"))
        other = TraceContext.root()
        await bus.publish(USER_CREATED.event("c", UserCreated("c"), traceparent=other.traceparent))
    assert seen == [here, None, other]


async def test_a_span_is_around_each_handler_and_continues_that_of_who_made_the_event() -> None:
    async def fail(event: Event[UserCreated]) -> None:
        raise ValueError("no")

    async with recorded() as spans:
        async with MemoryEventBus(redelivery=Redelivery(attempts=1)) as bus:
            bus.subscribe(USER_CREATED, fail, name="fails")
            with span("work"):
                await bus.publish(created("a"))
        made, handled, work = sorted(await spans.until(3), key=lambda each: each.name)
    assert (made.name, handled.name) == ("create user.created", "process user.created")
    assert is_child(made, work)
    assert is_child(handled, made)
    assert (made.kind, handled.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert handled.attributes is not None
    assert handled.attributes["messaging.consumer.group.name"] == "fails"
    assert exceptions_of(handled) == ["ValueError"]


async def test_a_batch_has_one_span_with_a_link_to_who_made_each_event() -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    async def take(events: Sequence[Event[UserCreated]]) -> None:
        begun.set()
        await go_on.wait()

    async with recorded() as spans:
        async with MemoryEventBus(tracer=spans.tracer) as bus:
            bus.subscribe_batches(USER_CREATED, take, name="batches")
            await bus.publish(created("first"))
            await begun.wait()
            for key in "ab":
                with span("work"):
                    await bus.publish(created(key))
            go_on.set()
        _, batch = await spans.named("process user.created")
        makers = await spans.named("create user.created")
    assert batch.parent is None
    assert {link.context.span_id for link in batch.links} == {
        maker.context.span_id for maker in makers
    }


async def test_closing_waits_no_longer_than_its_grace() -> None:
    async def hang(_event: Event[UserCreated]) -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(5):
        async with MemoryEventBus(grace=0.0) as bus:
            bus.subscribe(USER_CREATED, hang, name="hanging")
            await bus.publish(created("a"))


async def test_a_bus_is_used_within_its_async_with() -> None:
    async def ignore(_event: Event[UserCreated]) -> None: ...

    bus = MemoryEventBus()
    with pytest.raises(ClosedError, match="async with"):
        await bus.publish(created("a"))
    async with bus:
        bus.subscribe(USER_CREATED, ignore, name="one")
        with pytest.raises(ValueError, match="subscriber named 'one'"):
            bus.subscribe(USER_CREATED, ignore, name="one")
    with pytest.raises(ClosedError):
        bus.subscribe(USER_CREATED, ignore, name="two")


@pytest.mark.parametrize("arguments", [{"queue_size": 0}, {"grace": -1.0}])
def test_settings_that_cannot_work_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        MemoryEventBus(**arguments)
