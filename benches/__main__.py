"""``python -m benches``: measures, prints tables, writes JSON, fails when a target is missed."""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benches.harness import machine
from benches.harness.figures import Figures
from benches.macro import (
    Settings,
    client,
    discovery,
    events,
    gateway,
    memory,
    orders,
    sagas,
    server,
    streams,
)
from benches.micro.suites import micro_suite
from benches.peers import MissingToolError
from benches.report import html, table
from benches.report.render import MEASURED
from benches.report.targets import Verdict, judge

SUITES: Mapping[str, Callable[[Settings, Figures], None]] = {
    "server": server.measure,
    "client": client.measure,
    "streams": streams.measure,
    "gateway": gateway.measure,
    "memory": memory.measure,
    "discovery": discovery.measure,
    "sagas": sagas.measure,
    "orders": orders.measure,
    "events": events.measure,
    "codec": micro_suite("codec"),
    "policy": micro_suite("policy"),
    "tracing": micro_suite("tracing"),
    "transcode": micro_suite("transcode"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; answer with 0 if every target was met, 1 if not, 2 if a suite failed."""
    options = _parse(arguments)
    # The programs under test are stopped on every way out, this one included.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=None if sys.stdout.isatty() else 160)
    settings = Settings.quick() if options.quick else Settings.full()
    figures = Figures()
    for suite in options.only:
        started = time.monotonic()
        try:
            SUITES[suite](settings, figures)
        except MissingToolError as error:
            figures.skip(suite, str(error))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            figures.failed[suite] = "\n".join([str(error), *getattr(error, "__notes__", [])])
        console.print(f"[dim]{suite}: {time.monotonic() - started:.0f} s[/]")
    verdicts = judge(figures)
    table.show(console, figures, verdicts)
    _write(options.output, settings, figures, verdicts, quick=options.quick)
    console.print(f"written to {options.output} and {options.output.with_suffix('.html')}")
    if figures.failed or not any(figures):
        return 2
    return 0 if options.no_gate or all(verdict.met for verdict in verdicts) else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument(
        "--only", type=_suites, default=list(SUITES), help=f"some of {','.join(SUITES)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run of the harness: its figures mean nothing"
    )
    parser.add_argument("--no-gate", action="store_true", help="exit 0 even if a target is missed")
    parser.add_argument("--output", type=Path, default=MEASURED, help="the JSON to write")
    return parser.parse_args(arguments)


def _suites(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(SUITES):
        message = f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}"
        raise argparse.ArgumentTypeError(message)
    return names


def _write(
    path: Path, settings: Settings, figures: Figures, verdicts: Sequence[Verdict], *, quick: bool
) -> None:
    document = {
        "machine": machine.facts(),
        "settings": {"quick": quick, "rounds": settings.rounds, "seconds": settings.seconds},
        "figures": [figure.as_dict() for figure in figures],
        "targets": [verdict.as_dict() for verdict in verdicts],
        "not_measured": figures.skipped,
        "failed": figures.failed,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    path.with_suffix(".html").write_text(html.page(document))


if __name__ == "__main__":
    sys.exit(main())
