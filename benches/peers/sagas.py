"""``python -m benches.peers.sagas SUBJECT FOLDER AT_ONCE SECONDS``: steps of durable sagas a second, as JSON."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import anyio
import msgspec
import sqlalchemy as sa

from bascule.saga import Saga, SagaCoordinator, SqlSagaLog, StepCall, saga_tables
from bascule.sql import Database

_STEPS = 10


class Context(msgspec.Struct, frozen=True):
    """What the steps count in."""

    steps: int = 0


async def _act(context: Context, _call: StepCall) -> dict[str, int]:
    return {"steps": context.steps + 1}


async def _undo(_context: Context, _call: StepCall) -> None:
    pass


async def _bascule(folder: str, at_once: int, seconds: float, *, fsync: bool) -> dict[str, float]:
    metadata = sa.MetaData()
    tables = saga_tables(metadata)
    saga = Saga("bench", Context)
    for number in range(_STEPS):
        saga = saga.step(f"step-{number}", _act, _undo)
    database = Database(f"sqlite:///{folder}/bascule.db", metadata)
    if fsync:
        # As other libraries leave it: a commit is there after a power cut.
        sa.event.listen(
            database._engine,
            "connect",
            lambda connection, _: connection.execute("PRAGMA synchronous=FULL").close(),
        )
    async with database:
        coordinator = SagaCoordinator(SqlSagaLog(database, tables))

        async def run() -> None:
            assert (await coordinator.run(saga, Context())).steps == _STEPS

        return await _load(run, at_once, seconds)


def _dbos(folder: str, at_once: int, seconds: float) -> dict[str, float]:
    from dbos import DBOS

    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{folder}/dbos.sqlite",
            "log_level": "ERROR",
        }
    )

    @DBOS.step()
    async def step(steps: int) -> int:
        return steps + 1

    @DBOS.workflow()
    async def workflow() -> int:
        steps = 0
        for _ in range(_STEPS):
            steps = await step(steps)
        return steps

    async def main() -> dict[str, float]:
        DBOS.launch()

        async def run() -> None:
            assert await workflow() == _STEPS

        return await _load(run, at_once, seconds)

    try:
        return asyncio.run(main())
    finally:
        DBOS.destroy()


async def _load(
    run: Callable[[], Awaitable[None]], at_once: int, seconds: float
) -> dict[str, float]:
    """Run sagas, a number of them at a time, and count their steps."""
    await run()
    runs = 0
    started, used = time.perf_counter(), time.process_time()
    end = started + seconds

    async def repeat() -> None:
        nonlocal runs
        while True:
            await run()
            runs += 1
            if time.perf_counter() >= end:
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(repeat)
    steps = runs * _STEPS
    return {
        "steps_per_second": steps / (time.perf_counter() - started),
        "cpu_per_step": (time.process_time() - used) / max(steps, 1),
    }


def main() -> None:
    """Measure one subject."""
    subject, folder, at_once, seconds = sys.argv[1:]
    if subject == "dbos":
        result = _dbos(folder, int(at_once), float(seconds))
    else:
        backend, _, fsync = subject.partition("-")
        result = anyio.run(
            lambda: _bascule(folder, int(at_once), float(seconds), fsync=bool(fsync)),
            backend=backend,
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
