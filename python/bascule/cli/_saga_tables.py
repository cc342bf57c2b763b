"""How runs of sagas and reports of checks are printed."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bascule.observe import escape as visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bascule.saga import CheckReport, SagaRun, Violation

__all__ = [
    "print_report",
    "print_run",
    "print_runs",
    "progress",
    "write_report",
    "write_run",
    "write_runs",
]

_COLOURS = {"parked": "red", "undoing": "yellow", "running": "cyan", "completed": "green"}


_SHOWN = 3  # violations in full: the others mostly tell the same


def print_runs(runs: Sequence[SagaRun], *, more: bool) -> None:
    """Print runs for people."""
    console = _console()
    if not runs:
        console.print("no such run")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("id", "saga", "state", "updated", "owner", "at step"):
        table.add_column(column, overflow="fold")
    for run in runs:
        table.add_row(
            escape(run.saga_id),
            run.name,
            _state(run),
            _moment(run.updated),
            escape(run.owner or "-"),
            escape(run.step or "-"),
        )
    console.print(table)
    if more:
        console.print(f"[dim]more: --after {escape(runs[-1].cursor)}[/]", soft_wrap=True)


def print_run(run: SagaRun) -> None:
    """Print a run and its journal for people."""
    console = _console()
    console.print(f"[bold]{escape(run.saga_id)}[/]  {run.name}  {_state(run)}")
    facts = {
        "started": _moment(run.created),
        "updated": _moment(run.updated),
        "owner": run.owner,
        "due": None if run.due is None else _moment(run.due),
        "key": run.idempotency_key,
        "at step": run.step,
        "error": run.error,
        "context": run.context.decode(errors="replace"),
    }
    for name, value in facts.items():
        if value is not None:
            console.print(f"  {name:<8} {escape(visible(value))}", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "when", "what", "step", "by", "note"):
        table.add_column(column, overflow="fold")
    for record in run.records:
        table.add_row(
            str(record.sequence),
            _moment(record.at),
            record.event.value,
            escape(record.step or ""),
            escape(record.by),
            escape(visible(record.note or "")),
        )
    console.print(table)


def print_report(report: CheckReport, target: str) -> None:
    """Print what a check has found for people."""
    console = _console()
    console.print(
        f"\n[bold]{report.saga or target}[/bold]: {report.trials} runs, {report.kills} processes killed"
        f" at {len(report.points)} kinds of moments, in {report.seconds:.1f} s"
    )
    for outcome, count in sorted(report.outcomes.items()):
        console.print(f"  {outcome:<10} {count}")
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("killed")
    table.add_column("times", justify="right")
    for kind, count in _kinds(report).items():
        table.add_row(kind, str(count))
    if report.points:
        console.print(table)
    for violation in report.violations[:_SHOWN]:
        _print_violation(console, violation, target)
    for violation in report.violations[_SHOWN:]:
        console.print(f"violated too: --only {violation.trial}")
    if report.ok:
        console.print("[green]the invariant held in all of them[/]\n")
    else:
        console.print(f"[red]the invariant was violated in {len(report.violations)} of them[/]\n")


def _print_violation(console: Console, violation: Violation, target: str) -> None:
    console.print(f"\n[red]violated[/] with {violation.failing} failing")
    for kill in violation.kills:
        console.print(f"  killed {escape(kill)}")
    console.print(f"  {escape(visible(violation.problem))}")
    for line in violation.journal:
        console.print(f"    [dim]{escape(visible(line))}[/]")
    console.print(f"  alone: bascule saga check {target} --only {violation.trial}", soft_wrap=True)


def _kinds(report: CheckReport) -> dict[str, int]:
    kinds: dict[str, int] = {}
    for point, count in report.points.items():
        kind = point.partition(" the log has")[0]
        kind = (
            f"{kind} a write of the log" if kind in {"before", "after"} else "when a step replied"
        )
        kinds[kind] = kinds.get(kind, 0) + count
    return dict(sorted(kinds.items()))


@contextmanager
def progress(*, shown: bool) -> Iterator[Callable[[CheckReport], None]]:
    """Give a function that shows how a check is going, on standard error."""
    if not shown:
        yield lambda _report: None
        return

    def told(report: CheckReport) -> None:
        bad = f", {len(report.violations)} violations" if report.violations else ""
        sys.stderr.write(f"\r{report.trials} runs, {report.kills} kills{bad}")
        sys.stderr.flush()

    try:
        yield told
    finally:
        sys.stderr.write("\n")


def write_runs(runs: Sequence[SagaRun]) -> None:
    """Write runs as JSON."""
    after = runs[-1].cursor if runs else None
    _write({"runs": [_document(run) for run in runs], "after": after})


def write_run(run: SagaRun) -> None:
    """Write a run with its journal as JSON."""
    _write(_document(run) | {"records": msgspec.to_builtins(run.records)})


def write_report(report: CheckReport) -> None:
    """Write a report as JSON."""
    _write({"ok": report.ok, **msgspec.to_builtins(report)})


def _document(run: SagaRun) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(run, context=b""))
    del document["records"]
    return document | {"context": msgspec.Raw(run.context)}


def _write(document: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    sys.stdout.buffer.flush()


def _console() -> Console:
    return Console(highlight=False)


def _state(run: SagaRun) -> str:
    return f"[{_COLOURS.get(run.state.value, 'default')}]{run.state.value}[/]"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
