"""``bascule saga``: look at runs, send parked ones on, and check what a kill leaves behind."""

from __future__ import annotations

import getpass
import sys
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import anyio
import typer

from bascule.cli._call import Loop
from bascule.cli._ending import FAILED, ending
from bascule.cli._target import imported

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from bascule.saga import CheckReport, SagaOperator, SagaRun

__all__ = ["saga"]

T = TypeVar("T")

saga = typer.Typer(
    help="Look at sagas, send parked ones on, and check what a kill leaves behind.",
    no_args_is_help=True,
)


class State(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    UNDOING = "undoing"
    PARKED = "parked"
    COMPLETED = "completed"
    UNDONE = "undone"


class Outcome(StrEnum):
    """What a person has done with the step that a run is parked at."""

    DONE = "done"
    UNDONE = "undone"


Database = Annotated[
    str,
    typer.Option(
        envvar="BASCULE_SAGA_DATABASE",
        help="The log: sqlite:///file, mysql://user:password@host/name or postgresql://...",
    ),
]
Prefix = Annotated[str, typer.Option(help="Of the log's tables.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
RunId = Annotated[str, typer.Argument(metavar="ID", help="The run.")]
By = Annotated[str, typer.Option(help="Who you are, for the journal.")]


@saga.command("list")
def list_runs(
    *,
    database: Database,
    state: Annotated[State | None, typer.Option(help="Only runs in this state.")] = None,
    name: Annotated[str | None, typer.Option(help="Only runs of this saga.")] = None,
    idle: Annotated[
        float | None,
        typer.Option(help="Only runs that nothing was written of for this many seconds."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Runs at most.")] = 50,
    after: Annotated[
        str | None, typer.Option(help="Go on after this cursor, which the last page ended with.")
    ] = None,
    prefix: Prefix = "saga_",
    as_json: Json = False,
) -> None:
    """List runs, the oldest first."""
    from bascule.cli._saga_tables import print_runs, write_runs
    from bascule.saga import SagaState

    wanted = None if state is None else SagaState(state.value)
    runs = _operate(
        database,
        prefix,
        lambda operator: operator.list(
            state=wanted, name=name, idle=idle, after=after, limit=limit
        ),
    )
    if as_json:
        write_runs(runs)
    else:
        print_runs(runs, more=len(runs) == limit)


@saga.command()
def show(
    saga_id: RunId, *, database: Database, prefix: Prefix = "saga_", as_json: Json = False
) -> None:
    """Show a run and its journal."""
    _print(_operate(database, prefix, lambda operator: operator.show(saga_id)), as_json=as_json)


@saga.command()
def retry(
    saga_id: RunId,
    *,
    database: Database,
    by: By = "",
    why: Annotated[str | None, typer.Option(help="For the journal.")] = None,
    prefix: Prefix = "saga_",
    as_json: Json = False,
) -> None:
    """Have a parked run tried again. A worker does it."""
    who = by or getpass.getuser()
    run = _operate(database, prefix, lambda operator: operator.retry(saga_id, by=who, why=why))
    _print(run, as_json=as_json)


@saga.command()
def resolve(
    saga_id: RunId,
    outcome: Annotated[Outcome, typer.Argument(help="What you have done with the step.")],
    *,
    database: Database,
    why: Annotated[str, typer.Option(help="What you have done, for the journal.")],
    by: By = "",
    prefix: Prefix = "saga_",
    as_json: Json = False,
) -> None:
    """Tell that the step at which a run is parked was done or undone by hand. A worker does the rest."""
    who = by or getpass.getuser()
    run = _operate(
        database,
        prefix,
        lambda operator: operator.resolve(saga_id, outcome.value, by=who, why=why),
    )
    _print(run, as_json=as_json)


@saga.command()
def check(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:CHECK",
            help="An async context manager that is given a folder and yields a SagaCheck.",
        ),
    ],
    *,
    depth: Annotated[int, typer.Option(min=1, help="Kills in a row.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 2,
    limit: Annotated[int | None, typer.Option(min=1, help="Trials at most.")] = None,
    only: Annotated[str | None, typer.Option(help="One trial, as a violation names it.")] = None,
    database: Annotated[
        str | None, typer.Option(help="URL for the log; SQLite in a temporary folder if none.")
    ] = None,
    loop: Annotated[Loop, typer.Option(help="The event loop.")] = Loop.ASYNCIO,
    as_json: Json = False,
) -> None:
    """Run a saga again and again, kill its process wherever that could hurt, and look at what is left.

    It is run whole, and with each step failing before and after it has done its work; of each of these,
    a process is killed before and after every write of the log and at every reply of a step. The exit
    code is 1 if the invariant did not hold in some case.
    """
    from bascule.cli._saga_tables import print_report, progress, write_report
    from bascule.saga import check_saga

    with _failing(), progress(shown=not as_json and sys.stderr.isatty()) as told:
        report: CheckReport = check_saga(
            imported(target, "CHECK", "shop.order:check_order"),
            depth=depth,
            jobs=jobs,
            limit=limit,
            only=only,
            database=database,
            backend=loop.value,
            progress=told,
        )
    if as_json:
        write_report(report)
    else:
        print_report(report, target)
    if not report.ok:
        raise typer.Exit(1)


def _print(run: SagaRun, *, as_json: bool) -> None:
    from bascule.cli._saga_tables import print_run, write_run

    if as_json:
        write_run(run)
    else:
        print_run(run)


def _operate(database: str, prefix: str, work: Callable[[SagaOperator], Awaitable[T]]) -> T:
    import sqlalchemy as sa

    from bascule.saga import SagaOperator, SqlSagaLog, saga_tables
    from bascule.sql import Database as Sql

    async def main() -> T:
        tables = saga_tables(sa.MetaData(), prefix=prefix)
        async with Sql(database, pool_size=1) as opened:
            return await work(SagaOperator(SqlSagaLog(opened, tables)))

    with _failing():
        return anyio.run(main)


@contextmanager
def _failing() -> Iterator[None]:
    """Say what is wrong in one line."""
    import sqlalchemy as sa

    try:
        with ending("saga"):
            yield
    except sa.exc.DBAPIError as error:
        typer.echo(f"bascule saga: the database says: {error.orig}", err=True)
        raise typer.Exit(FAILED) from error
