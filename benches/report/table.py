"""The tables that a run prints."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benches.harness.figures import Figures
from benches.report.targets import Verdict
from benches.report.units import readable


def show(console: Console, figures: Figures, verdicts: Sequence[Verdict]) -> None:
    """Print every figure by suite, then what was to be reached."""
    for suite in dict.fromkeys(figure.key.suite for figure in figures):
        table = Table("case", "subject", "metric", title=suite, title_justify="left")
        for column in ("median", "min", "max"):
            table.add_column(column, justify="right")
        rows = [figure for figure in figures if figure.key.suite == suite]
        rows.sort(key=lambda figure: (figure.key.case, figure.key.metric))
        for figure in rows:
            values = (figure.median, min(figure.samples), max(figure.samples))
            texts = (readable(value, figure.unit) for value in values)
            table.add_row(
                figure.key.case, figure.key.subject, figure.key.metric.replace("_", " "), *texts
            )
        console.print(table)
    for what, why in figures.skipped.items():
        console.print(f"[yellow]not measured:[/] {what}: {why}")
    for suite, what in figures.failed.items():
        console.print(f"[bold red]failed:[/] {suite}: ", end="")
        console.print(what, markup=False)
    if verdicts:
        _show_verdicts(console, verdicts)


def _show_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    table = Table("target", title="to reach", title_justify="left")
    table.add_column("limit", justify="right")
    table.add_column("reached", justify="right")
    table.add_column("")
    for verdict in verdicts:
        name, limit, reached = wording(verdict)
        table.add_row(
            name, limit, reached, "[green]met[/]" if verdict.met else "[bold red]MISSED[/]"
        )
    console.print(table)


def wording(verdict: Verdict) -> tuple[str, str, str]:
    """Answer with what was to be reached, its limit and what was reached."""
    target = verdict.target
    key = target.figure
    name = f"{key.suite}, {key.case}: {key.subject}, {key.metric.replace('_', ' ')}"
    sign = ">=" if target.at_least else "<="
    if target.over is not None:
        return (
            f"{name} / {target.over.subject}",
            f"{sign} {target.limit:g}x",
            f"{verdict.value:.2f}x",
        )
    limit = readable(target.limit, target.unit)
    return name, f"{sign} {limit}", readable(verdict.value, target.unit)
