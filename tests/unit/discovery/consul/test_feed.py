"""The watches that share one query: somebody always makes it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bascule.discovery.consul._feed import Follower, ServiceFeed

pytestmark = pytest.mark.anyio


class Silent:
    """A query that never gets an answer."""

    async def next(self) -> Any:
        await anyio.sleep_forever()

    def rest(self) -> None: ...


async def follow(follower: Follower, scope: anyio.CancelScope) -> None:
    with scope:
        follower.clear()
        await follower.wait()
    follower.end()


async def test_whoever_is_to_lead_next_and_leaves_as_well_passes_it_on() -> None:
    feed = ServiceFeed(Silent())  # type: ignore[arg-type]
    followers = [Follower(feed, name) for name in "abc"]
    scopes = [anyio.CancelScope() for _ in followers]
    async with anyio.create_task_group() as tasks:
        for follower, scope in zip(followers, scopes, strict=True):
            tasks.start_soon(follow, follower, scope)
            await anyio.wait_all_tasks_blocked()
        first, _, third = followers
        assert feed.leader is first
        for scope in scopes[:2]:
            scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert feed.leader is third
        tasks.cancel_scope.cancel()
    assert feed.leader is None
    assert not feed.waiting


async def test_whoever_is_to_lead_next_and_has_news_passes_it_on() -> None:
    """It asks for its service first, which may take long."""
    feed = ServiceFeed(Silent())  # type: ignore[arg-type]
    followers = [Follower(feed, name) for name in "abc"]
    scopes = [anyio.CancelScope() for _ in followers]
    async with anyio.create_task_group() as tasks:
        for follower, scope in zip(followers, scopes, strict=True):
            tasks.start_soon(follow, follower, scope)
            await anyio.wait_all_tasks_blocked()
        _, second, third = followers
        scopes[0].cancel()
        second.mark()
        await anyio.wait_all_tasks_blocked()
        assert feed.leader is third
        tasks.cancel_scope.cancel()
