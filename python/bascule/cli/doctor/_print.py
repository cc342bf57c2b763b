"""How findings are printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bascule.cli.doctor._examine import Level
from bascule.observe import escape as visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bascule.cli.doctor._examine import Finding

__all__ = ["print_findings", "write_findings"]

_COLOURS = {
    Level.OK: "green",
    Level.WARNING: "yellow",
    Level.FAILED: "bold red",
    Level.UNCHECKED: "dim",
}


def print_findings(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print findings for people, by topic."""
    console = console or Console(highlight=False)
    for topic in dict.fromkeys(finding.topic for finding in findings):
        console.print(f"\n[bold]{topic}[/]")
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(no_wrap=True, min_width=13)
        table.add_column(overflow="fold", min_width=18, max_width=36)
        table.add_column(overflow="fold")
        said = ""
        for finding in findings:
            if finding.topic != topic:
                continue
            text, advice = escape(visible(finding.found)), escape(visible(finding.advice))
            if finding.level is Level.UNCHECKED:  # nobody has asked for it: on one line
                text = f"[dim]{text}; {advice}[/]"
            elif advice:
                text += f"\n[dim]-> {advice}[/]"
            subject = "" if finding.subject == said else escape(visible(finding.subject))
            said = finding.subject
            table.add_row(f"  [{_COLOURS[finding.level]}]{finding.level}[/]", subject, text)
        console.print(table)
    count = {level: sum(finding.level is level for finding in findings) for level in Level}
    told = [f"[{_COLOURS[level]}]{number} {level}[/]" for level, number in count.items() if number]
    console.print(f"\n{', '.join(told)}\n")


def write_findings(findings: Sequence[Finding]) -> None:
    """Write findings as one JSON document on standard output."""
    ok = not any(finding.level is Level.FAILED for finding in findings)
    document = {"ok": ok, "findings": msgspec.to_builtins(list(findings))}
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    sys.stdout.buffer.flush()
