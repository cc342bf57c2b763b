"""Keys, sessions, locks and leaders in a real Consul."""

from __future__ import annotations

import itertools

import anyio
import anyio.to_thread
import pytest
from tests.integration.test_consul import until

from bascule.discovery.consul import (
    ConsulClient,
    HeldLock,
    KeyValue,
    KvOperation,
    LeaderElection,
    LockLostError,
    TransactionError,
)
from bascule.errors import ConfigurationError
from bascule.testing.servers import ConsulServer

pytestmark = pytest.mark.anyio

_numbers = itertools.count()


@pytest.fixture
def prefix() -> str:
    """For keys that no other test uses."""
    return f"test-{next(_numbers)}"


async def test_keys(consul_server: ConsulServer, prefix: str) -> None:
    async with ConsulClient(consul_server.url) as client:
        kv = client.kv
        odd = f"{prefix}/a b/ü?#%2F&"
        assert await kv.get(odd) is None
        assert await kv.list(prefix) == ()
        assert await kv.put(odd, b"\x00\xff", flags=7)
        found = await kv.get(odd)
        assert found is not None
        assert (found.key, found.value, found.flags) == (odd, b"\x00\xff", 7)
        assert await kv.put(f"{prefix}/empty", b"")
        assert [each.key for each in await kv.list(prefix, consistency="consistent")] == [
            odd,
            f"{prefix}/empty",
        ]
        assert await kv.keys(prefix + "/", separator="/") == (f"{prefix}/a b/", f"{prefix}/empty")
        assert await kv.delete(odd)
        assert await kv.delete(odd)
        assert await kv.delete(prefix, recurse=True)
        assert await kv.keys(prefix) == ()


async def test_check_and_set(consul_server: ConsulServer, prefix: str) -> None:
    async with ConsulClient(consul_server.url) as client:
        kv, key = client.kv, f"{prefix}/key"
        assert await kv.put(key, b"1", cas=0)
        assert not await kv.put(key, b"2", cas=0)
        found = await kv.get(key)
        assert found is not None
        assert await kv.put(key, b"2", cas=found.modify_index)
        assert not await kv.put(key, b"3", cas=found.modify_index)
        assert not await kv.delete(key, cas=found.modify_index)
        found = await kv.get(key)
        assert found is not None
        assert found.value == b"2"
        assert await kv.delete(key, cas=found.modify_index)


async def test_transactions_do_all_or_nothing(consul_server: ConsulServer, prefix: str) -> None:
    async with ConsulClient(consul_server.url) as client:
        kv = client.kv
        a, b = f"{prefix}/a", f"{prefix}/b"
        done = await kv.transaction([KvOperation("set", a, b"1"), KvOperation("get", a)])
        assert [each.value for each in done] == [None, b"1"]
        with pytest.raises(TransactionError) as caught:
            await kv.transaction(
                [KvOperation("set", a, b"2"), KvOperation("cas", b, b"2", index=9)]
            )
        assert [index for index, _ in caught.value.failures] == [1]
        found = await kv.get(a)
        assert found is not None
        assert found.value == b"1"
        with pytest.raises(ValueError, match="64"):
            await kv.transaction([KvOperation("get", a)] * 65)


async def test_a_watch_of_a_prefix(consul_server: ConsulServer, prefix: str) -> None:
    """What is there, then each change, also that all is gone; other keys do not wake it."""
    async with ConsulClient(consul_server.url) as client:
        seen: list[tuple[KeyValue, ...]] = []

        async def follow() -> None:
            async with client.kv.watch(f"{prefix}/") as states:
                async for state in states:
                    seen.append(state)  # noqa: PERF401

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await until(lambda: seen == [()])
            await client.kv.put(f"{prefix}/a", b"1")
            await until(lambda: len(seen) == 2 and seen[1][0].value == b"1")
            await client.kv.put(f"{prefix}-other", b"1")
            await client.kv.delete(prefix, recurse=True)
            await until(lambda: seen[-1] == ())
            assert len(seen) == 3
            tasks.cancel_scope.cancel()


async def test_one_holder_at_a_time_and_tokens_that_grow(
    consul_server: ConsulServer, prefix: str
) -> None:
    tokens: list[int] = []
    inside = 0

    async def contend(url: str) -> None:
        nonlocal inside
        async with ConsulClient(url) as client:
            for _ in range(5):
                async with client.lock(f"{prefix}/lock", value=b"me") as held:
                    inside += 1
                    assert inside == 1
                    tokens.append(held.fencing_token)
                    found = await client.kv.get(f"{prefix}/lock")
                    assert found is not None
                    assert found.session == held.session
                    await anyio.sleep(0.01)
                    inside -= 1

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(contend, consul_server.url)
    assert len(tokens) == 15
    assert all(a < b for a, b in itertools.pairwise(tokens))


async def test_tokens_grow_though_the_key_was_deleted(
    consul_server: ConsulServer, prefix: str
) -> None:
    """Its LockIndex begins again then: that is no fencing token."""
    async with ConsulClient(consul_server.url) as client:
        tokens = []
        for _ in range(3):
            async with client.lock(f"{prefix}/lock") as held:
                tokens.append(held.fencing_token)
            await client.kv.delete(f"{prefix}/lock")
        assert tokens == sorted(set(tokens))


async def hold_until_lost(held: HeldLock) -> None:
    with anyio.fail_after(20):
        await anyio.sleep_forever()


async def test_a_lock_that_is_lost_ends_its_body(consul_server: ConsulServer, prefix: str) -> None:
    """Its session was ended, its key deleted, or given to another session."""
    async with ConsulClient(consul_server.url) as client:
        key = f"{prefix}/lock"
        for how in ("session", "key", "released"):
            begun = anyio.current_time()
            with pytest.raises(LockLostError) as caught:
                async with client.lock(key, lock_delay=0) as held:
                    if how == "session":
                        await client.sessions.destroy(held.session)
                    elif how == "key":
                        await client.kv.delete(key)
                    else:
                        await client.kv.put(key, b"", release=held.session)
                    await hold_until_lost(held)
            assert anyio.current_time() - begun < 5
            assert caught.value.key == key
            assert held.problem is not None


async def test_the_lock_delay_is_kept(consul_server: ConsulServer, prefix: str) -> None:
    """After a holder that did not give it back, nobody gets it for a while."""
    async with ConsulClient(consul_server.url) as client:
        key = f"{prefix}/lock"
        with pytest.raises(LockLostError):
            async with client.lock(key, lock_delay=2) as held:
                first = held.fencing_token
                begun = anyio.current_time()
                await client.sessions.destroy(held.session)
                await hold_until_lost(held)
        async with client.lock(key) as held:
            assert 1.9 <= anyio.current_time() - begun < 5
            assert held.fencing_token > first
        begun = anyio.current_time()
        async with client.lock(key):
            assert anyio.current_time() - begun < 1, "it was given back"


async def test_errors_of_the_body_come_out_and_the_lock_is_free(
    consul_server: ConsulServer, prefix: str
) -> None:
    async with ConsulClient(consul_server.url) as client:
        for error in (ValueError("mine"), LookupError("mine")):
            with pytest.raises(type(error), match="mine"):
                async with client.lock(f"{prefix}/lock"):
                    raise error
        with anyio.CancelScope() as scope:
            async with client.lock(f"{prefix}/lock") as held:
                scope.cancel()
                await anyio.sleep_forever()
        assert await client.sessions.info(held.session) is None
        found = await client.kv.get(f"{prefix}/lock")
        assert found is not None
        assert found.session is None


async def test_waiting_can_be_given_up(consul_server: ConsulServer, prefix: str) -> None:
    """And leaves no session behind."""
    async with ConsulClient(consul_server.url) as client:
        async with client.lock(f"{prefix}/lock") as held:
            with anyio.move_on_after(0.3) as scope:
                async with client.lock(f"{prefix}/lock"):
                    pytest.fail("it is held")
            assert scope.cancelled_caught
            assert held.problem is None
        with pytest.raises(ConfigurationError):
            async with client.lock(f"{prefix}/lock", ttl=5):
                pytest.fail("unreachable")


async def test_a_consul_that_is_away_costs_the_lock_after_its_ttl(
    own_consul: ConsulServer, prefix: str
) -> None:
    """Nobody can know then who holds it. A restart within that time costs nothing."""
    async with ConsulClient(own_consul.url) as client:
        key = f"{prefix}/lock"
        async with client.lock(key, ttl=10) as held:
            await anyio.to_thread.run_sync(own_consul.kill)
            await anyio.to_thread.run_sync(own_consul.start)
            await anyio.sleep(2)
            assert held.problem is None
        begun = anyio.current_time()
        with pytest.raises(LockLostError, match="could not be renewed for 10 s"):
            async with client.lock(key, ttl=10) as held:
                await anyio.to_thread.run_sync(own_consul.kill)
                await hold_until_lost(held)
        assert anyio.current_time() - begun < 20


async def test_leaders(consul_server: ConsulServer, prefix: str) -> None:
    """One leads; when it steps back, another one does; followers can see who."""
    async with ConsulClient(consul_server.url) as client:
        key = f"{prefix}/leader"
        one = LeaderElection(client, key, value=b"one")
        two = LeaderElection(client, key, value=b"two")
        terms: list[tuple[bytes, int]] = []
        assert await one.leader() is None

        async def lead(election: LeaderElection, value: bytes, leave: anyio.Event) -> None:
            async with election.lead() as term:
                leader = await election.leader()
                assert leader is not None
                assert leader.value == value
                terms.append((value, term.fencing_token))
                await leave.wait()

        leave = anyio.Event()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lead, one, b"one", leave)
                await until(lambda: len(terms) == 1)
                tasks.start_soon(lead, two, b"two", leave)
                await anyio.sleep(0.3)
                assert len(terms) == 1
                leave.set()
        assert [value for value, _ in terms] == [b"one", b"two"]
        assert terms[0][1] < terms[1][1]
        assert await one.leader() is None
