"""How a frame looks in a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bascule.observe import escape as visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from bascule.cli.top._frame import Calls, Frame, Process

__all__ = ["view"]

_STATES = {"open": "bold red", "half-open": "yellow", "closed": "green"}

#: Rows of a table: the busiest come first, and a terminal has some 50 lines for all.
_MOST_ROWS = 12

#: Rows of calls that are shown even if nobody makes them now.
_LEAST_ROWS = 3

#: Seconds of a timer's delay that callers notice.
_LATE = 0.05

_WEEK = 7 * 86400.0


def view(frame: Frame, *, note: str = "") -> RenderableType:
    """Make a renderable of a frame; parts that no process has are left out.

    :param note: at the end of the first line, such as how to leave
    """
    parts: list[RenderableType] = [_head(frame, note), *_processes(frame.processes)]
    for title, calls in (
        ("gateway", frame.requests),
        ("served", frame.served),
        ("called", frame.made),
    ):
        if calls:
            parts.append(_calls(title, calls))
    if frame.breakers:
        parts.append(_breakers(frame.breakers))
    for title, rows, columns in (
        ("limits", frame.limits, {"admitted": "/s", "rejected": "!/s", "degraded": "!/s"}),
        (
            "attempts",
            {target: rates for target, rates in frame.retries.items() if any(rates.values())},
            {"retry": "/s", "hedge": "/s", "throttled": "!/s", "pushed_back": "!/s"},
        ),
        (
            "sagas",
            frame.sagas,
            {
                "active": "",
                "running": "",
                "undoing": "!",
                "parked": "!",
                "completed/s": "/s",
                "undone/s": "/s",
            },
        ),
        ("outbox", frame.outboxes, {"pending": "", "oldest": "s", "relayed": "/s"}),
        (
            "events",
            frame.events,
            {"lag": "", "seconds": "s", "handled": "/s", "retried": "!/s", "dead": "!/s"},
        ),
        (
            "databases",
            frame.databases,
            {"size": "", "in_use": "", "waiting": "!", "troubles": "!/s"},
        ),
        ("discovery", frame.discovery, {"age": "s", "errors": "!/s"}),
    ):
        if rows:
            parts.append(_rows(title, rows, columns))
    if soon := {name: left for name, left in frame.certificates.items() if left < _WEEK}:
        parts.append(_certificates(soon))
    return Group(*parts)


def _head(frame: Frame, note: str) -> Text:
    total = len(frame.processes)
    moment = datetime.fromtimestamp(frame.at, UTC).strftime("%H:%M:%S UTC")
    text = Text.assemble(("bascule top", "bold"), f"  {moment}  ")
    text.append(
        f"{frame.answering} of {total} answer", "green" if frame.answering == total else "bold red"
    )
    if note:
        text.append(f"  {note}", "dim")
    return text


def _processes(processes: Sequence[Process]) -> Iterator[RenderableType]:
    table = _table("process", "loop", "late, p99", "tasks", "connections", "scrape")
    for process in processes:
        if process.problem:
            continue
        late = _time(process.lag)
        table.add_row(
            _shown(process.url.removesuffix("/metrics")),
            _shown(process.backend) or "-",
            f"[red]{late}[/]" if process.lag is not None and process.lag > _LATE else late,
            _count(process.tasks),
            _count(process.connections),
            _time(process.took),
        )
    if table.row_count:
        yield table
    for process in processes:
        if process.problem:
            silent = "" if process.silent is None else f" for {process.silent:.0f} s"
            url = process.url.removesuffix("/metrics")
            yield Text(visible(f"{url} is down{silent}: {process.problem}"), "bold red")


def _calls(title: str, calls: Sequence[Calls]) -> Table:
    table = _table(title, "/s", "faults", "refused", "p50", "p99", "now")
    shown = [row for row in calls if row.rate or row.in_progress][:_MOST_ROWS]
    shown += calls[len(shown) : _LEAST_ROWS]  # the busiest come first
    for row in shown:
        separator = " " if title == "gateway" else "/"
        parts = (row.method, row.name) if title == "gateway" else (row.name, row.method)
        table.add_row(
            _shown(separator.join(parts)),
            _rate(row.rate),
            _share(row.faults, "bold red"),
            _share(row.refused, "yellow"),
            _time(row.p50),
            _time(row.p99),
            _count(row.in_progress),
            style=None if row.rate else "dim",
        )
    return _with_rest(table, len(calls) - len(shown))


def _breakers(breakers: Mapping[str, str]) -> Table:
    table = _table("breakers", "state")
    for name, state in list(breakers.items())[:_MOST_ROWS]:
        table.add_row(_shown(name), f"[{_STATES.get(state, 'red')}]{_shown(state)}[/]")
    return _with_rest(table, len(breakers) - _MOST_ROWS)


def _rows(title: str, rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str]) -> Table:
    """A table of numbers: "/s" and "s" are their units, "!" is for those that should be 0."""
    known = {name for cells in rows.values() for name in cells}
    shown = {name: unit for name, unit in columns.items() if name in known}
    heads = [
        name.replace("_", " ") + ("/s" if unit.endswith("/s") and "/s" not in name else "")
        for name, unit in shown.items()
    ]
    table = _table(title, *heads)
    for name, cells in list(rows.items())[:_MOST_ROWS]:
        texts = []
        for column, unit in shown.items():
            value = cells.get(column)
            if unit.endswith("/s"):
                text = _rate(value)
            else:
                text = _time(value) if unit == "s" else _count(value)
            texts.append(f"[bold red]{text}[/]" if unit.startswith("!") and value else text)
        table.add_row(_shown(name), *texts)
    return _with_rest(table, len(rows) - _MOST_ROWS)


def _certificates(soon: Mapping[str, float]) -> Table:
    table = _table("certificates", "end")
    for name, left in sorted(soon.items(), key=lambda each: each[1]):
        text = f"in {left / 86400:.1f} days" if left > 0 else "have ended"
        table.add_row(_shown(name), f"[bold red]{text}[/]")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=True)
    table.add_column(
        f"\n[bold]{title}[/]", ratio=1, no_wrap=True, overflow="ellipsis", min_width=14
    )
    for column in columns:
        table.add_column(
            f"\n{column}", justify="right", no_wrap=True, overflow="ellipsis", min_width=7
        )
    return table


def _with_rest(table: Table, count: int) -> Table:
    if count > 0:
        table.add_row(f"[dim]and {count} more[/]")
    return table


def _shown(text: str) -> str:
    return escape(visible(text))


def _rate(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _share(value: float | None, style: str) -> str:
    if value is None:
        return "-"
    return f"[{style}]{value:.1%}[/]" if value else "0%"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds == 0.0:
        return "0 s"
    for limit, size, unit in ((1e-3, 1e-6, "us"), (1.0, 1e-3, "ms"), (120.0, 1.0, "s")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 60:.0f} min"
