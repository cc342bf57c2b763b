"""The rules that every log keeps. Whoever has a log to try derives from this class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

import anyio
import msgspec
import pytest

from bascule.saga import (
    DuplicateSagaError,
    SagaEvent,
    SagaFencedError,
    SagaLog,
    SagaRecord,
    SagaRun,
    SagaState,
)


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def new(
    saga_id: str, *, name: str = "order", key: str | None = None, now: float = 1_000.0
) -> SagaRun:
    records = (
        SagaRecord(sequence=0, event=SagaEvent.STARTED, at=now, by="first"),
        SagaRecord(sequence=1, event=SagaEvent.BEGUN, at=now, by="first", step="a"),
    )
    return SagaRun(
        saga_id=saga_id,
        name=name,
        state=SagaState.RUNNING,
        context=b'{"total":7}',
        idempotency_key=key,
        owner="first",
        due=now + 10.0,
        sequence=2,
        created=now,
        updated=now,
        records=records,
    )


def done(run: SagaRun, now: float, **changes: object) -> tuple[SagaRun, list[SagaRecord]]:
    record = SagaRecord(sequence=run.sequence, event=SagaEvent.DONE, at=now, by="first", step="a")
    after = msgspec.structs.replace(
        run,
        **{"sequence": run.sequence + 1, "updated": now, "due": now + 10.0, **changes},  # type: ignore[arg-type]
    )
    return after, [record]


def finished(run: SagaRun, now: float) -> tuple[SagaRun, list[SagaRecord]]:
    return done(run, now, state=SagaState.COMPLETED, owner=None, due=None)


class LogRules(ABC):
    """What is true of every log."""

    @abstractmethod
    def log(self, clock: Clock) -> AbstractAsyncContextManager[SagaLog]:
        """Open an empty log."""

    async def test_gives_back_what_was_begun_and_written(self) -> None:
        async with self.log(Clock()) as log:
            run = new("s1", key="k")
            await log.begin(run)
            assert await log.load("s1") == run
            after, added = done(run, 1_001.5, context=b'{"total":8}', step="a", error="x")
            await log.write(after, added)
            assert await log.load("s1") == msgspec.structs.replace(
                after, records=(*run.records, *added)
            )
            assert await log.load("s2") is None

    async def test_an_id_and_a_key_begin_once(self) -> None:
        async with self.log(Clock()) as log:
            await log.begin(new("s1", key="k"))
            for other in (new("s1"), new("s1", key="k"), new("s2", key="k")):
                with pytest.raises(DuplicateSagaError) as caught:
                    await log.begin(msgspec.structs.replace(other, owner="second"))
                assert caught.value.saga_id == "s1"
            await log.begin(new("s2", name="other", key="k"))
            await log.begin(new("s3", key="K"))
            await log.begin(new("S1"))
            await log.begin(new("s4"))
            await log.begin(new("s5"))

    async def test_a_write_is_refused_once_the_run_was_claimed_or_written(self) -> None:
        clock = Clock()
        async with self.log(clock) as log:
            run = new("s1")
            await log.begin(run)
            after, added = done(run, 1_001.0)
            await log.write(after, added)
            late, more = done(run, 1_002.0)
            with pytest.raises(SagaFencedError):
                await log.write(late, more)
            clock.now = 1_011.0
            (taken,) = await log.claim("second", 10.0)
            late, more = done(after, 1_012.0)
            with pytest.raises(SagaFencedError):
                await log.write(late, more)
            with pytest.raises(SagaFencedError):
                await log.renew(after, 1_030.0)
            assert await log.load("s1") == taken
            with pytest.raises(SagaFencedError):
                await log.write(*done(new("unknown"), 1_002.0))

    async def test_the_same_write_again_changes_nothing(self) -> None:
        async with self.log(Clock()) as log:
            run = new("s1")
            await log.begin(run)
            after, added = done(run, 1_001.0)
            await log.write(after, added)
            before = await log.load("s1")
            await log.write(after, added)
            assert await log.load("s1") == before

    async def test_only_what_is_due_is_claimed_the_longest_due_first(self) -> None:
        clock = Clock()
        async with self.log(clock) as log:
            for number, due in enumerate((1_030.0, 1_010.0, 1_020.0)):
                await log.begin(msgspec.structs.replace(new(f"s{number}"), due=due))
            await log.begin(msgspec.structs.replace(new("other", name="other"), due=1_005.0))
            assert await log.claim("w", 10.0) == []
            clock.now = 1_025.0
            assert await log.claim("w", 10.0, names=["unknown"], limit=9) == []
            assert await log.claim("w", 10.0, saga_id="s0") == []
            (first,) = await log.claim("w", 10.0, names=["order"])
            assert (first.saga_id, first.owner, first.epoch, first.due) == ("s1", "w", 2, 1_035.0)
            assert first.records[-1].event is SagaEvent.CLAIMED
            assert first.sequence == len(first.records) == 3
            assert [run.saga_id for run in await log.claim("w", 10.0, limit=9)] == ["other", "s2"]
            assert await log.claim("w", 10.0, limit=9) == []

    async def test_a_renewed_lease_lasts_longer(self) -> None:
        clock = Clock()
        async with self.log(clock) as log:
            run = new("s1")
            await log.begin(run)
            await log.renew(run, 1_050.0)
            clock.now = 1_049.0
            assert await log.claim("w", 10.0) == []
            clock.now = 1_051.0
            assert len(await log.claim("w", 10.0)) == 1

    async def test_one_owner_that_begins_an_id_twice_is_refused_the_second_time(self) -> None:
        """Though all but the moment and what the run is about are the same."""
        async with self.log(Clock()) as log:
            await log.begin(new("s1"))
            with pytest.raises(DuplicateSagaError):
                await log.begin(new("s1", now=1_000.5))
            after, added = done(new("s1"), 1_001.0)
            await log.write(after, added)
            with pytest.raises(DuplicateSagaError):
                await log.begin(new("s1"))

    async def test_a_run_that_is_over_has_no_lease_to_renew(self) -> None:
        """Or it would be due again one day, and be driven again."""
        clock = Clock()
        async with self.log(clock) as log:
            run = new("s1")
            await log.begin(run)
            after, added = finished(run, 1_001.0)
            await log.write(after, added)
            with pytest.raises(SagaFencedError):
                await log.renew(run, 1_020.0)
            clock.now = 1_030.0
            assert await log.claim("w", 10.0) == []

    async def test_many_claimers_get_each_run_once(self) -> None:
        clock = Clock()
        async with self.log(clock) as log:
            for number in range(20):
                await log.begin(new(f"s{number}"))
            clock.now = 1_011.0
            taken: list[str] = []

            async def claim(owner: str) -> None:
                while runs := await log.claim(owner, 60.0, limit=3):
                    taken.extend(run.saga_id for run in runs)

            async with anyio.create_task_group() as tasks:
                for number in range(4):
                    tasks.start_soon(claim, f"w{number}")
            # A claimer may be given fewer than there are, never one that another has.
            taken += [run.saga_id for run in await log.claim("last", 60.0, limit=99)]
            assert sorted(taken) == sorted(f"s{number}" for number in range(20))

    async def test_lists_by_state_name_and_age_page_by_page(self) -> None:
        clock = Clock()
        async with self.log(clock) as log:
            for number in range(5):
                run = new(f"s{number}", name="even" if number % 2 == 0 else "odd")
                await log.begin(msgspec.structs.replace(run, created=1_000.0 + number // 2))
            run = new("parked", now=1_010.0)
            await log.begin(run)
            await log.write(*done(run, 1_020.0, state=SagaState.PARKED, due=None))
            assert [run.saga_id for run in await log.list()] == [
                "s0", "s1", "s2", "s3", "s4", "parked",
            ]  # fmt: skip
            assert [run.saga_id for run in await log.list(state=SagaState.PARKED)] == ["parked"]
            assert [run.saga_id for run in await log.list(name="odd")] == ["s1", "s3"]
            assert len(await log.list(updated_before=1_001.0)) == 5
            pages, after = [], None
            while page := await log.list(after=after, limit=2):
                pages.append([run.saga_id for run in page])
                after = page[-1].cursor
            assert pages == [["s0", "s1"], ["s2", "s3"], ["s4", "parked"]]
            assert all(run.records == () for run in await log.list())
            assert await log.count() == {
                ("even", SagaState.RUNNING): 3,
                ("odd", SagaState.RUNNING): 2,
                ("order", SagaState.PARKED): 1,
            }

    async def test_only_old_finished_runs_are_forgotten(self) -> None:
        async with self.log(Clock()) as log:
            for name, now in (("old", 1_001.0), ("new", 1_009.0)):
                run = new(name, key=name)
                await log.begin(run)
                await log.write(*finished(run, now))
            await log.begin(new("unfinished"))
            assert await log.forget(1_005.0) == 1
            assert await log.forget(1_005.0) == 0
            assert {run.saga_id for run in await log.list()} == {"new", "unfinished"}
            assert await log.load("old") is None
            await log.begin(new("again", key="old"))
