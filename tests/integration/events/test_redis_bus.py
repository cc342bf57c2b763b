"""The bus on a real Redis: order per key, leases, retries, dead letters, restarts."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest
from tests.servers import need

from bascule._redis import RedisClient
from bascule.errors import ClosedError, ConfigurationError, StoreUnavailableError
from bascule.events import Event, Redelivery, RedisEventBus, Topic
from bascule.observe import Metrics, TraceContext, current_trace, trace_variable
from bascule.testing.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from tests.certificates import Certificates

pytestmark = pytest.mark.anyio


class Moved(msgspec.Struct, frozen=True):
    step: int


MOVED = Topic("piece.moved", Moved)
SOON = Redelivery(attempts=3, first=0.01, longest=0.02)


def moved(key: str, step: int = 0) -> Event[Moved]:
    return MOVED.event(key, Moved(step))


@asynccontextmanager
async def running(url: str, **settings: Any) -> AsyncIterator[RedisEventBus]:
    async with RedisEventBus(url, **{"lease": 1.0, "redelivery": SOON, **settings}) as bus:
        yield bus


class Seen:
    """A handler that remembers, and lets tests wait for what they expect."""

    def __init__(self, fail: Callable[[Event[Moved]], bool] = lambda event: False) -> None:
        self.events: list[Event[Moved]] = []
        self._fail = fail
        self._more = anyio.Event()

    async def __call__(self, event: Event[Moved]) -> None:
        self.events.append(event)
        self._more.set()
        self._more = anyio.Event()
        if self._fail(event):
            raise ValueError(f"{event.key} is bad")

    async def batch(self, events: Sequence[Event[Moved]]) -> None:
        for event in events:
            await self(event)

    @property
    def steps(self) -> dict[str, list[int]]:
        steps: dict[str, list[int]] = {}
        for event in self.events:
            steps.setdefault(event.key, []).append(event.payload.step)
        return steps

    async def until(self, count: int) -> None:
        with anyio.fail_after(20):
            while len(self.events) < count:
                await self._more.wait()


async def settled(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition of the server holds, by asking it."""
    with anyio.fail_after(20):
        while not await check():  # noqa: ASYNC110 (the server tells nobody)
            await anyio.sleep(0.02)


async def test_each_group_gets_each_event_in_order_of_its_key(redis_url: str) -> None:
    first, second = Seen(), Seen()
    async with running(redis_url) as bus:
        bus.subscribe(MOVED, first, name="first")
        bus.subscribe_batches(MOVED, second.batch, name="second", size=7)
        for step in range(50):
            await bus.publish(*(moved(key, step) for key in "abcdefgh"))
        await first.until(400)
        await second.until(400)
    assert first.steps == second.steps == {key: list(range(50)) for key in "abcdefgh"}
    assert bus.stats.published == {"piece.moved": 400}
    assert bus.stats.subscriber("piece.moved", "first").handled == 400


async def test_a_new_event_is_handled_at_once_though_nobody_polls(redis_url: str) -> None:
    seen = Seen()
    async with running(redis_url, lease=30.0) as bus:
        bus.subscribe(MOVED, seen, name="quick")
        await bus.publish(moved("warm-up"))
        await seen.until(1)
        begun = anyio.current_time()
        for count in range(20):
            await bus.publish(moved("a", count))
            await seen.until(count + 2)
        assert anyio.current_time() - begun < 20.0, "the bell wakes; polling would take 5 s each"


async def test_members_share_the_partitions_evenly_and_a_leaver_gives_them_back(
    redis_url: str,
) -> None:
    one, two = Seen(), Seen()
    async with running(redis_url) as stays:
        stays.subscribe(MOVED, one, name="shared")
        member = stays._members["piece.moved"]["shared"]
        await settled(lambda: _true(len(member._partitions) == 8))
        async with running(redis_url) as leaves:
            leaves.subscribe(MOVED, two, name="shared")
            other = leaves._members["piece.moved"]["shared"]
            await settled(lambda: _true(len(member._partitions) == len(other._partitions) == 4))
            await stays.publish(*(moved(str(key)) for key in range(100)))
            await settled(lambda: _true(len(one.events) + len(two.events) == 100))
            assert one.events, "both work"
            assert two.events, "both work"
        await settled(lambda: _true(len(member._partitions) == 8))
    together = [event.key for event in one.events + two.events]
    assert sorted(together) == sorted(str(key) for key in range(100)), "each went to one of them"


async def _true(condition: bool) -> bool:
    return condition


async def test_a_failing_handler_holds_its_key_back_and_then_the_event_is_a_dead_letter(
    redis_url: str,
) -> None:
    seen = Seen(fail=lambda event: event.payload.step == 1)
    async with running(redis_url) as bus:
        bus.subscribe(MOVED, seen, name="picky")
        await bus.publish(*(moved("a", step) for step in range(4)))
        await seen.until(6)
        assert seen.steps == {"a": [0, 1, 1, 1, 2, 3]}
        (letter,) = await bus.dead_letters(MOVED, "picky")
        assert letter.event == seen.events[1]
        assert (letter.attempts, letter.error) == (3, "ValueError: a is bad")
        stats = bus.stats.subscriber("piece.moved", "picky")
        assert (stats.retried, stats.dead_lettered) == (2, 1)


async def test_a_dead_letter_comes_back_to_its_own_group_only(redis_url: str) -> None:
    broken = [True]
    picky, other = Seen(fail=lambda event: broken[0]), Seen()
    async with running(redis_url) as bus:
        bus.subscribe(MOVED, picky, name="picky")
        bus.subscribe(MOVED, other, name="other")
        await bus.publish(moved("a"), moved("b"))
        await picky.until(6)
        await settled(lambda: _count(bus, "picky", 2))
        letters = await bus.dead_letters(MOVED, "picky")
        broken[0] = False
        assert await bus.redeliver(MOVED, "picky", letters[0].id, "0-1") == 1
        await picky.until(7)
        assert await bus.discard(MOVED, "picky", letters[1].id) == 1
        assert await bus.discard(MOVED, "picky") == 0
        assert await bus.dead_letters(MOVED, "picky") == []
        await bus.publish(moved("a", 9))
        await other.until(3)
    assert other.steps == {"a": [0, 9], "b": [0]}


async def _count(bus: RedisEventBus, name: str, count: int) -> bool:
    return len(await bus.dead_letters(MOVED, name)) == count


async def test_without_room_for_dead_letters_the_handler_is_called_until_it_succeeds(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    seen._fail = lambda event: event.key == "x" or len(seen.events) < 10
    async with running(redis_url, dead_letters=1, partitions=1) as bus:
        bus.subscribe(MOVED, seen, name="full")
        await bus.publish(moved("x"), moved("y"))
        await seen.until(10)
        assert await _count(bus, "full", 1)
    assert seen.steps == {"x": [0] * 3, "y": [0] * 7}
    assert "has 1 dead letters" in caplog.text


async def test_what_nobody_can_read_is_a_dead_letter_at_once(redis_url: str) -> None:
    seen = Seen()
    async with RedisClient(redis_url) as redis, running(redis_url, partitions=1) as bus:
        stream = "bascule:events:{piece.moved}:0"
        await redis.call("XADD", stream, "*", "e", b"\xff no event")
        await redis.call("XADD", stream, "*", "other", "field")
        bus.subscribe(MOVED, seen, name="reader")
        await bus.publish(moved("a"))
        await seen.until(1)
        (letter,) = await bus.dead_letters(MOVED, "reader")
        assert (letter.event, letter.data) == (None, b"\xff no event")
        assert letter.error.startswith("DecodeError")


async def test_a_member_that_dies_leaves_its_events_to_others_in_order(redis_url: str) -> None:
    """What it was given and had not acknowledged comes first; it is given out again."""
    entered = anyio.Event()

    async def hang(event: Event[Moved]) -> None:
        entered.set()
        await anyio.sleep_forever()

    seen = Seen()
    async with running(redis_url, partitions=1, grace=0.0) as dies:
        dies.subscribe(MOVED, hang, name="group")
        await dies.publish(*(moved("a", step) for step in range(3)))
        await entered.wait()
    async with running(redis_url, partitions=1) as heir:
        await heir.publish(moved("a", 3))
        heir.subscribe(MOVED, seen, name="group")
        await seen.until(4)
    assert seen.steps == {"a": [0, 1, 2, 3]}


async def test_an_event_that_kills_its_handlers_is_a_dead_letter_and_its_neighbours_are_not(
    redis_url: str,
) -> None:
    entered: list[anyio.Event] = []

    async def die(event: Event[Moved]) -> None:
        if event.payload.step == 1:
            entered[-1].set()
            await anyio.sleep_forever()

    for _ in range(3):
        entered.append(anyio.Event())
        async with running(redis_url, partitions=1, grace=0.0) as bus:
            bus.subscribe(MOVED, die, name="group")
            if len(entered) == 1:
                await bus.publish(*(moved("a", step) for step in range(3)))
            with anyio.fail_after(20):
                await entered[-1].wait()
    seen = Seen()
    async with running(redis_url, partitions=1, deliveries=3) as bus:
        bus.subscribe(MOVED, seen, name="group")
        await seen.until(1)
        (letter,) = await bus.dead_letters(MOVED, "group")
    assert letter.event is not None
    assert letter.event.payload.step == 1
    assert "died before" in letter.error
    assert seen.steps == {"a": [2]}


async def test_a_member_that_was_stopped_past_its_lease_is_fenced(redis_url: str) -> None:
    """It neither reads nor acknowledges; what it was handling is cancelled and handled by the heir."""
    entered, cancelled = anyio.Event(), anyio.Event()

    async def hang(event: Event[Moved]) -> None:
        entered.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    seen = Seen()
    lease = "bascule:events:{piece.moved}:0:lease:group"
    async with RedisClient(redis_url) as redis, running(redis_url, partitions=1) as stopped:
        stopped.subscribe(MOVED, hang, name="group")
        await stopped.publish(moved("a", 1), moved("a", 2))
        await entered.wait()
        # As if its lease had run out while it slept, and somebody else had been quicker.
        await redis.call("SET", lease, "somebody else", "PX", 60_000)
        with anyio.fail_after(10):
            await cancelled.wait()
        await stopped.publish(moved("a", 3))
        pending = await redis.call("XPENDING", "bascule:events:{piece.moved}:0", "group")
        assert pending[0] == 2, "nothing was read or acknowledged any more"
        await redis.call("DEL", lease)
    async with running(redis_url, partitions=1) as heir:
        heir.subscribe(MOVED, seen, name="group")
        await seen.until(3)
    assert seen.steps == {"a": [1, 2, 3]}


async def test_lag_is_told_and_what_is_handled_is_trimmed_and_nothing_else(redis_url: str) -> None:
    slow, release = Seen(), anyio.Event()

    async def wait(event: Event[Moved]) -> None:
        await release.wait()
        await slow(event)

    quick = Seen()
    metrics = Metrics()
    async with (
        RedisClient(redis_url) as redis,
        running(redis_url, partitions=1, retention=0.0) as bus,
    ):
        metrics.add_events(bus.stats)
        bus.subscribe(MOVED, quick, name="quick")
        bus.subscribe(MOVED, wait, name="slow")
        await bus.publish(*(moved("a", step) for step in range(50)))
        await quick.until(50)
        stream = "bascule:events:{piece.moved}:0"

        async def looked() -> bool:
            await bus.look()
            return bus.stats.subscriber("piece.moved", "quick").lag == 0

        await settled(looked)
        stats = bus.stats.subscriber("piece.moved", "slow")
        assert stats.lag == 50
        assert stats.oldest is not None
        assert 0 <= stats.oldest < 20
        assert await redis.call("XLEN", stream) == 50
        text = metrics.render()[0].decode()
        assert 'events_lag{subscriber="slow",topic="piece.moved"} 50.0' in text
        assert 'events_handled_total{subscriber="quick",topic="piece.moved"} 50.0' in text
        release.set()
        await slow.until(50)

        async def trimmed() -> bool:
            await bus.look()
            return int(await redis.call("XLEN", stream)) == 0

        await settled(trimmed)
        assert (stats.lag, stats.oldest) == (0, 0.0)


async def test_a_forgotten_group_holds_nothing_back(redis_url: str) -> None:
    async with (
        RedisClient(redis_url) as redis,
        running(redis_url, partitions=1, retention=0.0) as bus,
    ):
        async with running(redis_url, partitions=1) as former:
            former.subscribe(MOVED, Seen(), name="former")
            await former.publish(moved("a"))
            await settled(lambda: _handled(former, "former", 1))
        await bus.publish(moved("a"))
        await bus.look()
        assert await redis.call("XLEN", "bascule:events:{piece.moved}:0") == 1
        await bus.forget(MOVED, "former")

        async def trimmed() -> bool:
            await bus.look()
            return int(await redis.call("XLEN", "bascule:events:{piece.moved}:0")) == 0

        await settled(trimmed)


async def _handled(bus: RedisEventBus, name: str, count: int) -> bool:
    return bus.stats.subscriber("piece.moved", name).handled == count


async def test_a_handler_works_in_the_trace_of_who_published(redis_url: str) -> None:
    traces: list[TraceContext | None] = []
    seen = Seen()

    async def handle(event: Event[Moved]) -> None:
        traces.append(current_trace())
        await seen(event)

    here = TraceContext.root(sampled=True)._replace(state="vendor=1")
    async with running(redis_url) as bus:
        bus.subscribe(MOVED, handle, name="traced")
        token = trace_variable.set(here)
        await bus.publish(moved("a"))
        trace_variable.reset(token)
        await seen.until(1)
    assert traces == [here]


async def test_closing_lets_the_handler_finish_and_acknowledges(redis_url: str) -> None:
    entered, release = anyio.Event(), anyio.Event()
    handled: list[int] = []

    async def slow(event: Event[Moved]) -> None:
        entered.set()
        await release.wait()
        handled.append(event.payload.step)

    async with anyio.create_task_group() as tasks:
        async with running(redis_url, partitions=1) as bus:
            bus.subscribe(MOVED, slow, name="slow")
            await bus.publish(moved("a", 1))
            await entered.wait()
            tasks.start_soon(_set_soon, release)
    async with RedisClient(redis_url) as redis:
        assert (await redis.call("XPENDING", "bascule:events:{piece.moved}:0", "slow"))[0] == 0
        assert not await redis.call("EXISTS", "bascule:events:{piece.moved}:0:lease:slow")
    assert handled == [1]


async def _set_soon(event: anyio.Event) -> None:
    await anyio.lowlevel.checkpoint()
    event.set()


async def test_another_number_of_partitions_is_refused(redis_url: str) -> None:
    async with running(redis_url, partitions=4) as bus:
        await bus.publish(moved("a"))
    async with running(redis_url, partitions=8) as bus:
        with pytest.raises(ConfigurationError, match="has 4 partitions on this Redis, not 8"):
            await bus.publish(moved("a"))


async def test_a_bus_needs_no_redis_to_open_and_publishing_says_that_it_is_away(
    own_redis: RedisServer,
) -> None:
    own_redis.stop()
    seen = Seen()
    async with running(own_redis.url) as bus:
        bus.subscribe(MOVED, seen, name="patient")
        with pytest.raises(
            StoreUnavailableError, match=r"Redis 127\.0\.0\.1:\d+ cannot be reached"
        ):
            await bus.publish(moved("a"))
        own_redis.start()
        await bus.publish(moved("b"))
        await seen.until(1)
    assert [event.key for event in seen.events] == ["b"]
    with pytest.raises(ClosedError, match="async with"):
        await bus.publish(moved("c"))


async def test_a_restarted_redis_loses_nothing_that_it_acknowledged(own_redis: RedisServer) -> None:
    """A publisher that tries again until it is told so, and killed three times in between."""
    seen = Seen()
    total = 600

    async def publish(bus: RedisEventBus, key: str) -> None:
        for step in range(total // 6):
            event = moved(key, step)
            while True:
                try:
                    await bus.publish(event)
                    break
                except StoreUnavailableError:
                    await anyio.sleep(0.02)

    async with running(own_redis.url, timeout=1.0) as bus:
        bus.subscribe(MOVED, seen, name="steady")
        async with anyio.create_task_group() as tasks:
            for key in "abcdef":
                tasks.start_soon(publish, bus, key)
            for part in (1, 2, 3):
                await seen.until(total * part // 5)
                own_redis.kill()
                own_redis.start()
        await settled(lambda: _true(len({event.id for event in seen.events}) == total))
    for key, steps in seen.steps.items():
        firsts = list(dict.fromkeys(steps))
        assert firsts == list(range(total // 6)), key


async def test_password_and_user_come_by_url_and_need_few_rights(
    redis_server: RedisServer,
) -> None:
    async with RedisClient(redis_server.url) as redis:
        await redis.call(
            *("ACL", "SETUSER", "p@ul", "reset", "on", ">se:cr/et", "~bascule:events:*"),
            *("+@read", "+@write", "+@scripting", "+time", "+xinfo", "+hello", "-@dangerous"),
        )
        await redis.call("FLUSHDB")
        address = redis.address
        seen = Seen()
        async with running(f"redis://p%40ul:se%3Acr%2Fet@{address}/0") as bus:
            bus.subscribe(MOVED, seen, name="guest")
            await bus.publish(moved("a"))
            await seen.until(1)
            await bus.look()
        async with running(f"redis://p%40ul:wrong@{address}/0", timeout=1.0) as bus:
            with pytest.raises(StoreUnavailableError) as refused:
                await bus.publish(moved("a"))
            assert "wrong" not in str(refused.value), "no secret in any message"
        await redis.call("ACL", "DELUSER", "p@ul")


class TLSRedis(RedisServer):
    """Takes TLS connections only, from clients that show a certificate of its authority."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__(durable=False)
        self.certificates = certificates

    def _command(self, program: Path) -> list[str]:
        files = self.certificates
        plain = super()._command(program)
        place = plain.index("--port")
        return [
            *(*plain[:place], "--port", "0", "--tls-port", *plain[place + 1 :]),
            *("--tls-cert-file", str(files.certificate), "--tls-key-file", str(files.key)),
            *("--tls-ca-cert-file", str(files.ca)),
        ]

    def _ask(self, command: bytes) -> bytes:
        files = self.certificates
        context = ssl.create_default_context(cafile=files.ca)
        context.load_cert_chain(files.certificate, files.key)
        with (
            socket.create_connection(("127.0.0.1", self.port), 5.0) as connection,
            context.wrap_socket(connection, server_hostname="127.0.0.1") as wrapped,
        ):
            wrapped.sendall(command)
            return wrapped.recv(64)


async def test_tls_is_verified_both_ways(certificates: Certificates, tmp_path: Path) -> None:
    need(RedisServer)
    seen = Seen()
    with TLSRedis(certificates) as server:
        trusting = f"rediss://{server.address}?ssl_ca_certs={certificates.ca}"
        known = f"&ssl_certfile={certificates.certificate}&ssl_keyfile={certificates.key}"
        async with running(trusting + known) as bus:
            bus.subscribe(MOVED, seen, name="tls")
            await bus.publish(moved("a"))
            await seen.until(1)
        for url in (
            trusting,
            f"rediss://{server.address}?{known[1:]}",
            f"redis://{server.address}",
        ):
            async with running(url, timeout=2.0) as bus:
                with pytest.raises(StoreUnavailableError):
                    await bus.publish(moved("a"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "http://localhost"}, "names no server"),
        ({"url": "redis://"}, "names no server"),
        ({"url": "redis://h:port"}, "malformed"),
        ({"url": "redis://h?ssl_ca_certs=x"}, "for rediss"),
        ({"url": "rediss://h?ssl_ca_certs=/no/such/file"}, "cannot be read"),
        ({"url": "redis://h?retries=3"}, "mean nothing"),
        ({"partitions": 0}, "partitions is 0"),
        ({"partitions": 2000}, "1024"),
        ({"lease": 0.0}, "lease is 0"),
        ({"retention": -1.0}, "retention"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        RedisEventBus(**{"url": "redis://localhost", **settings})
