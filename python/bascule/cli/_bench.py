"""``bascule bench``: its arguments, and how its figures are printed."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bascule.cli._ending import WRONG, ending

if TYPE_CHECKING:
    from bascule.cli.bench._suite import Figure, Results

__all__ = ["bench"]

_METRICS = {
    "calls_per_second": "calls/s",
    "cpu_per_call": "CPU a call",
    "sequential_p50": "one by one, p50",
    "sequential_p99": "p99",
}


class BenchLoop(StrEnum):
    """The event loops that can be measured."""

    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"
    TRIO = "trio"


def bench(
    *,
    loop: Annotated[
        list[BenchLoop] | None, typer.Option(help="Only what runs on this loop; may be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each subject.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of each turn.")] = 1.0,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write all samples as JSON.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option("--full", help="In a checkout: the whole suite against all peers instead."),
    ] = False,
) -> None:
    """Measure bascule's servers and clients on this machine, and grpclib and grpcio if they are there.

    One small unary call, each program in a process and on a core of its own, the subjects in turn.
    It takes about a minute. Figures are medians with the least and the most in brackets: what is
    within these is noise. Busy machines measure themselves.
    """
    import msgspec

    from bascule.cli.bench._suite import (
        Plan,
        machine_facts,
        measure_all,
        subjects,
    )

    if full:
        raise typer.Exit(_full())
    plan = Plan(subjects([each.value for each in loop or ()]), rounds, seconds)
    if not plan.subjects:
        typer.echo(
            "bascule bench: uvloop is not installed: pip install 'bascule[uvloop]'", err=True
        )
        raise typer.Exit(WRONG)

    facts = machine_facts()
    with ending("bench"):
        try:
            results = measure_all(plan, _tell)
        finally:
            _tell("")
        document = {
            "machine": facts,
            "settings": {"quick": False, "rounds": rounds, "seconds": seconds},
            "figures": list(results.figures.values()),
        }
        text = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
        if output is not None:
            output.write_bytes(text)
    if as_json:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    else:
        _print(facts, results)


def _full() -> int:
    if not Path("benches/__main__.py").exists():
        typer.echo(
            "bascule bench: --full: there is no benches/ here; run it in a checkout of bascule",
            err=True,
        )
        return WRONG
    return subprocess.run([sys.executable, "-m", "benches"], check=False).returncode


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _print(facts: dict[str, Any], results: Results) -> None:
    from rich.console import Console
    from rich.table import Table

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
