"""The in-process bus and the outbox relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest

from bascule.errors import ClosedError, DecodeError
from bascule.events import Event, MemoryEventBus, OutboxRelay, Topic

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

    async with MemoryEventBus() as bus:
        bus.subscribe(USER_CREATED, bad, name="bad")
        bus.subscribe(USER_CREATED, good, name="good")
        await bus.publish(created("a"))
        await bus.publish(created("b"))
    assert seen == ["a", "b"]
    assert caplog.text.count("bad could not handle user.created") == 2


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


def test_an_event_survives_its_encoding() -> None:
    event = USER_CREATED.event("u1", UserCreated("u1"), traceparent="00-ab-cd-01")
    assert USER_CREATED.decode(USER_CREATED.encode(event)) == event


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"key":"a"}', b'{"key":"a","payload":{},"id":"x","time":0}']
)
def test_bytes_that_are_no_event_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"user\.created"):
        USER_CREATED.decode(data)


class Store:
    """An outbox in memory whose reads can be made to fail."""

    def __init__(self, *events: Event[Any]) -> None:
        self.rows = dict(enumerate(events))
        self.failures = 0

    async def pending(self, limit: int) -> Sequence[tuple[int, Event[Any]]]:
        if self.failures:
            self.failures -= 1
            raise OSError("database away")
        return sorted(self.rows.items())[:limit]

    async def published(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            del self.rows[number]


async def test_the_relay_publishes_what_was_left_behind_and_what_comes() -> None:
    seen: list[str] = []
    arrived = anyio.Event()

    async def handle(event: Event[UserCreated]) -> None:
        seen.append(event.key)
        if event.key == "149":
            arrived.set()

    store = Store(*(created(str(number)) for number in range(150)))
    async with MemoryEventBus() as bus:
        bus.subscribe(USER_CREATED, handle, name="test")
        async with OutboxRelay(store, bus) as relay:
            await arrived.wait()
            store.rows[200] = created("200")
            relay.notify()
        assert store.rows == {}
    assert seen == [*(str(number) for number in range(150)), "200"]


async def test_the_relay_goes_on_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def handle(event: Event[UserCreated]) -> None:
        seen.append(event.key)

    store = Store(created("a"))
    store.failures = 2
    async with MemoryEventBus() as bus:
        bus.subscribe(USER_CREATED, handle, name="test")
        async with OutboxRelay(store, bus, retry=0.0):
            pass
    assert seen == ["a"]
    assert "could not be published" in caplog.text
