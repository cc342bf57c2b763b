"""How the account of the tour is printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

if TYPE_CHECKING:
    from bascule.cli._demo import Account
    from bascule.cli._trace import TraceNode

__all__ = ["print_account", "print_serving", "write_json"]


def print_account(account: Account, console: Console | None = None) -> None:
    """Print the account for people."""
    console = console or Console(highlight=False)
    console.print(
        f"\n[bold]The shop[/bold] on {account.backend}, started in {account.starting:.2f} s"
    )
    listed = {"gateway": account.url, **account.services, **account.components}
    for name, address in listed.items():
        console.print(f"  {name:<10} {address}")
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("A client comes to the gateway by HTTP/2 and TLS")
    table.add_column("requests", justify="right")
    table.add_column("ms", justify="right")
    for visit in account.visits:
        good = visit.problem is None
        answer = visit.found if visit.problem is None else visit.problem
        table.add_row(
            "[green]ok[/green]" if good else "[red]no[/red]",
            f"{visit.title}\n[{'dim' if good else 'red'}]{escape(answer)}[/]",
            str(visit.requests),
            f"{visit.seconds * 1e3:.1f}",
        )
    console.print(table)
    failed = sum(visit.problem is not None for visit in account.visits)
    requests = sum(visit.requests for visit in account.visits)
    verdict = "[green]every answer as expected[/green]"
    if failed:
        verdict = f"[red]{failed} of {len(account.visits)} stops differ from what is expected[/red]"
    console.print(f"\n{requests} requests in {account.seconds:.2f} s: {verdict}")
    if account.trace is not None:
        _print_trace(console, account.trace)
        console.print(f"It stands at {account.trace_url}", soft_wrap=True)
    _print_questions(account, console)
    console.print("To ask it yourself: bascule demo --serve --listen 127.0.0.1:8443\n")


def _print_questions(account: Account, console: Console) -> None:
    """Print what Prometheus made of the tour, if there is one."""
    if account.rules is None:
        return
    console.print("\n[bold]Prometheus[/bold] has scraped it, and is asked:")
    for question in account.questions:
        console.print(f"\n{question.title}\n[dim]{escape(question.expression)}[/dim]")
        for name, value in question.values.items():
            console.print(f"  {name:<40} {value:>10}")
    console.print()
    if account.rules:
        console.print(
            f"It evaluates the alerts of {account.rules} files in deploy/prometheus/rules."
        )
    else:
        console.print("It evaluates no alerts: they are in a checkout (deploy/prometheus/rules).")


def _print_trace(console: Console, root: TraceNode) -> None:
    console.print(f"\n[bold]An order of the tour[/bold]: one trace of {root.spans} spans, in ms")
    console.print(_branch(root, Tree(_line(root), guide_style="dim")))


def _branch(node: TraceNode, tree: Tree) -> Tree:
    for child in node.children:
        _branch(child, tree.add(_line(child)))
    return tree


def _line(node: TraceNode) -> str:
    times = f" [dim]{node.count} times[/dim]" if node.count > 1 else ""
    name = f"[red]{escape(node.name)}[/red]" if node.failed else escape(node.name)
    return f"[cyan]{escape(node.service)}[/cyan] {name}{times} {node.seconds * 1e3:.1f}"


def print_serving(account: Account) -> None:
    """Say on standard error how to go on by oneself: standard output may be read by a program."""
    console = Console(stderr=True, highlight=False)
    console.print(
        "Serving until Ctrl-C. A token of Ada's for a day, and a request to begin with:\n"
    )
    console.print(f"TOKEN={account.token}", soft_wrap=True)
    console.print(
        f'curl --http2 --cacert {account.certificate} -H "authorization: Bearer $TOKEN"'
        f" {account.url}/api/v1/orders\n",
        soft_wrap=True,
    )
    if "prometheus" in account.components:
        console.print(f"Prometheus goes on, too: {account.components['prometheus']}/graph\n")


def write_json(account: Account) -> None:
    """Write the account as one JSON document on standard output."""
    document = {"ok": account.ok, **msgspec.to_builtins(account)}
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    sys.stdout.buffer.flush()
