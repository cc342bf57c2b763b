"""The rules of logs, kept in memory and in SQLite."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
import sqlalchemy as sa
from tests.unit.saga.logs import Clock, LogRules, done, new

from bascule.saga import MemorySagaLog, SagaLogError, SqlSagaLog, saga_tables
from bascule.sql import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bascule.saga import SagaLog

pytestmark = pytest.mark.anyio


class TestMemoryLog(LogRules):
    @asynccontextmanager
    async def log(self, clock: Clock) -> AsyncIterator[SagaLog]:
        yield MemorySagaLog(clock=clock)


class TestSqliteLog(LogRules):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path / 'log.db'}"

    @asynccontextmanager
    async def log(self, clock: Clock) -> AsyncIterator[SagaLog]:
        metadata = sa.MetaData()
        tables = saga_tables(metadata)
        async with Database(self.url, metadata) as database:
            yield SqlSagaLog(database, tables, clock=clock)

    async def test_what_was_written_is_there_for_the_next_process(self) -> None:
        run = new("s1")
        async with self.log(Clock()) as log:
            await log.begin(run)
        async with self.log(Clock()) as log:
            assert await log.load("s1") == run

    async def test_a_database_out_of_reach_is_told_as_such(self, tmp_path: Path) -> None:
        async with Database(f"sqlite:///{tmp_path}/none/log.db") as database:
            log = SqlSagaLog(database)
            with pytest.raises(SagaLogError, match="read"):
                await log.load("s1")
            with pytest.raises(SagaLogError, match="written"):
                await log.write(*done(new("s1"), 1.0))

    async def test_notes_are_kept_short(self) -> None:
        async with self.log(Clock()) as log:
            run = new("s1")
            await log.begin(run)
            after, (record,) = done(run, 1_001.0, error="x" * 5_000)
            await log.write(after, [msgspec.structs.replace(record, note="y" * 5_000)])
            stored = await log.load("s1")
            assert stored is not None
            assert (len(stored.error or ""), len(stored.records[-1].note or "")) == (2_000, 2_000)


def test_tables_are_defined_once_in_a_metadata() -> None:
    metadata = sa.MetaData()
    assert saga_tables(metadata) == saga_tables(metadata)
    assert set(metadata.tables) == {"saga_runs", "saga_records"}
