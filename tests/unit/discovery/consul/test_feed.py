"""The watches that share one query: somebody always makes it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from bascule.discovery.consul._feed import Follower, ServiceFeed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


class Silent:
    """A query that never gets an answer."""

    async def next(self) -> Any:
        await anyio.sleep_forever()

    def rest(self) -> None: ...


@asynccontextmanager
async def following(names: str) -> AsyncIterator[tuple[ServiceFeed, list[Follower], list[Any]]]:
    """Watches that have begun one after the other; the first makes the query."""
    feed = ServiceFeed(Silent())  # type: ignore[arg-type]
    followers = [Follower(feed, name) for name in names]
    scopes = [anyio.CancelScope() for _ in followers]

    async def follow(follower: Follower, scope: anyio.CancelScope) -> None:
        with scope:
            follower.clear()
            await follower.wait()
        follower.end()

    async with anyio.create_task_group() as tasks:
        for follower, scope in zip(followers, scopes, strict=True):
            tasks.start_soon(follow, follower, scope)
            await anyio.wait_all_tasks_blocked()
        assert feed.leader is followers[0]
        yield feed, followers, scopes
        tasks.cancel_scope.cancel()
    assert feed.leader is None
    assert not feed.waiting


async def test_whoever_is_to_lead_next_and_leaves_as_well_passes_it_on() -> None:
    async with following("abc") as (feed, followers, scopes):
        for scope in scopes[:2]:
            scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert feed.leader is followers[2]


async def test_whoever_is_to_lead_next_and_has_news_passes_it_on() -> None:
    """It asks for its service first, which may take long."""
    async with following("abc") as (feed, followers, scopes):
        scopes[0].cancel()
        followers[1].mark()
        await anyio.wait_all_tasks_blocked()
        assert feed.leader is followers[2]
