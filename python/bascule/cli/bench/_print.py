"""How figures are printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from bascule.cli.bench._load import Load
    from bascule.cli.bench._suite import Figure, Results

__all__ = ["print_load", "print_results"]

_METRICS = {
    "calls_per_second": "calls/s",
    "cpu_per_call": "CPU a call",
    "sequential_p50": "one by one, p50",
    "sequential_p99": "p99",
}

#: Cells of the longest bar.
_WIDTH = 40


def print_results(facts: dict[str, Any], results: Results) -> None:
    """Print what was measured on this machine."""
    console = Console(highlight=False)
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    pinned = (
        "" if facts["pinned"] else ", not pinned: there is one core, so sides disturb each other"
    )
    console.print(f"{facts['cpu']}, {facts['cores']} cores{pinned}; {facts['system']}")
    console.print(f"Python {facts['python']}; {packages}; load {facts['load_average']:.1f}")
    if facts["load_average"] > facts["cores"] / 2:
        console.print(
            "[yellow]the machine is busy with something else: it can do more than this[/]"
        )
    for suite in ("server", "client"):
        chosen = [each for each in results.figures.values() if each.suite == suite]
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(f"\n[bold]{suite}s[/]")
        for metric in dict.fromkeys(each.metric for each in chosen):
            table.add_column(f"\n{_METRICS[metric]}", justify="right")
        for subject in dict.fromkeys(each.subject for each in chosen):
            cells = [_spread(each) for each in chosen if each.subject == subject]
            table.add_row(subject, *cells)
        console.print(table)
    console.print("\n[dim]in a checkout, `make bench` measures everything against all peers[/]")


def _spread(figure: Figure) -> str:
    median, least, most = (
        _value(each, figure.unit) for each in (figure.median, figure.min, figure.max)
    )
    return median if least == most else f"{median} [dim]({least}..{most})[/]"


def _value(value: float, unit: str) -> str:
    if unit == "1/s":
        return f"{value:,.0f}"
    return f"{value * 1e6:.3g} us" if value < 1e-3 else f"{value * 1e3:.3g} ms"


def print_load(load: Load) -> None:
    """Print what came of load on a server."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(load.method)}[/] at {escape(load.target)}")
    connections = "1 connection" if load.connections == 1 else f"{load.connections} connections"
    console.print(
        f"{load.calls:,} calls in {load.seconds:.2f} s, {load.in_flight} at a time over {connections}: "
        f"[bold]{load.rate:,.0f} calls/s[/]"
    )
    for status, count in load.statuses.items():
        colour = "green" if status == "OK" else "bold red"
        console.print(f"  [{colour}]{status}[/] {count:,} ({count / load.calls:.1%})")
    if load.mean is None or load.fastest is None or load.slowest is None:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    times = {"fastest": load.fastest, "mean": load.mean}
    times |= {f"p{percent}": value for percent, value in load.percentiles.items()}
    times["slowest"] = load.slowest
    for name in times:
        table.add_column(f"\n[bold]{name}[/]", justify="right")
    table.add_row(*(_value(value, "s") for value in times.values()))
    console.print(table)
    most = max(count for _, count in load.bars)
    console.print()
    for bound, count in load.bars:
        bar = "#" * round(_WIDTH * count / most)
        console.print(f"  up to {_value(bound, 's'):>8}  {count:>9,}  [cyan]{bar}[/]")
