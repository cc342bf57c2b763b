"""Publishes a run: ``python -m benches.report.render [JSON]``.

The JSON is kept in ``benches/report``; ``docs/reference/performance.md``, the plots beside it, and what
stands between the two markers of ``README.md`` are written from it.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benches.peers import ROOT
from benches.report import html
from benches.report.texts import METRICS, SUITES
from benches.report.units import readable

MARKERS = ("<!-- figures: begin -->", "<!-- figures: end -->")
MEASURED = ROOT / ".build/benches/latest.json"
PUBLISHED = ROOT / "benches/report/latest.json"
PAGE = ROOT / "docs/reference/performance.md"
PLOTS = ROOT / "docs/reference/performance-plots.html"
_INTRODUCTION = """\
# Performance

`make bench` measures all of this in one run: every program alone on one core, what loads it on
another, the subjects in turn, {rounds} rounds of {seconds:g} s. Figures are medians, with the least
and the most in brackets; ratios are between figures of the same run. bascule runs with deadlines,
cancel scopes, an interceptor, metrics and a circuit breaker on; the others as their documentation
sets them up. [The same with plots](performance-plots.html) opens without a network. The commands and
all samples stand in [latest.json](../../benches/report/latest.json).

The peers in Go and Rust are built on the first run, if `go` and `cargo` are there; `h2load` comes
with nghttp2 (`apt-get install nghttp2-client`). What is missing is named, and left out.
`.venv/bin/python -m benches --only server,client` measures some suites, `--quick` only shows that
they run, and `.venv/bin/python -m benches.report.render` writes this page from the last run. Each run
writes its own plots to `.build/benches/latest.html`.

Measured on {cpu}, {cores} cores, {system}, Python {python}; {packages}; {go}; {rust}; {servers}.
"""

Row = Mapping[str, Any]


def document(report: Row) -> str:
    """Answer with the whole page."""
    machine = dict(report["machine"])
    packages = ", ".join(f"{name} {version}" for name, version in machine.pop("packages").items())
    servers = "; ".join(machine.pop("servers"))
    parts = [
        _INTRODUCTION.format(
            **machine, **report["settings"], packages=packages, servers=servers or "no servers"
        )
    ]
    figures: Sequence[Row] = report["figures"]
    for suite in dict.fromkeys(figure["suite"] for figure in figures):
        title, method = SUITES[suite]
        parts.append(f"## {title}\n\n{method}\n")
        parts.append(_suite([figure for figure in figures if figure["suite"] == suite]))
    parts.append("## What was to be reached\n")
    parts.append(_table(["what", "limit", "reached", ""], map(_target, report["targets"])))
    for what, why in report["not_measured"].items():
        parts.append(f"Not measured: {what}: {why}\n")
    return "\n".join(parts)


def fragment(report: Row) -> str:
    """Answer with the README's table: servers and clients under the most load."""
    wanted = {("server", "-c1 -m100"): "server", ("client", "100 in flight, to grpc-go"): "client"}
    columns: dict[str, dict[tuple[str, str], str]] = {}
    for figure in report["figures"]:
        role = wanted.get((figure["suite"], figure["case"]))
        if role is not None:
            text = readable(figure["median"], figure["unit"])
            columns.setdefault(figure["subject"], {})[role, figure["metric"]] = text
    heads = [
        (("server", "calls_per_second"), "server, calls/s"),
        (("server", "cpu_per_call"), "CPU a call"),
        (("client", "calls_per_second"), "client, calls/s"),
        (("client", "cpu_per_call"), "CPU a call"),
    ]
    rows = (
        [subject, *(cells.get(key, "") for key, _ in heads)] for subject, cells in columns.items()
    )
    return _table(["", *(head for _, head in heads)], rows)


def _suite(figures: Sequence[Row]) -> str:
    """Answer with one table: a row for each case and subject, a column for each metric."""
    metrics = list(dict.fromkeys(figure["metric"] for figure in figures))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for figure in figures:
        cells.setdefault((figure["case"], figure["subject"]), {})[figure["metric"]] = _spread(
            figure
        )
    heads = ["case", "", *(METRICS.get(metric, metric.replace("_", " ")) for metric in metrics)]
    order = list(dict.fromkeys(case for case, _ in cells))
    keys = sorted(cells, key=lambda key: order.index(key[0]))
    rows = ([*key, *(cells[key].get(metric, "") for metric in metrics)] for key in keys)
    return _table(heads, rows)


def _spread(figure: Row) -> str:
    unit = figure["unit"]
    median, least, most = (readable(figure[name], unit) for name in ("median", "min", "max"))
    return median if least == most else f"{median} ({least} to {most})"


def _target(target: Row) -> list[str]:
    sign = "at least" if target["at_least"] else "at most"
    metric = METRICS.get(target["metric"], target["metric"].replace("_", " "))
    name = f"{target['suite']}, {target['case']}: {target['subject']}, {metric}"
    mark = "met" if target["met"] else "**missed**"
    if target["over"]:
        return [
            f"{name}, to {target['over']}",
            f"{sign} {target['limit']:g}x",
            f"{target['value']:.2f}x",
            mark,
        ]
    unit = target.get("unit", "B")
    limit, value = readable(target["limit"], unit), readable(target["value"], unit)
    return [name, f"{sign} {limit}", value, mark]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def put_between_markers(text: str, table: str) -> str:
    """Answer with the text and the table between its markers.

    :raises ValueError: if it does not have both
    """
    begin, end = MARKERS
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        message = f"README.md has no place for the table: put {begin} and {end} where it belongs"
        raise ValueError(message)
    return f"{head}{begin}\n{table}{end}{tail}"


def main() -> None:
    """Publish."""
    parser = argparse.ArgumentParser(prog="python -m benches.report.render", description=__doc__)
    parser.add_argument("json", type=Path, nargs="?", default=MEASURED, help="what a run wrote")
    text = parser.parse_args().json.read_text()
    report = json.loads(text)
    readme = ROOT / "README.md"
    readme.write_text(put_between_markers(readme.read_text(), fragment(report)))
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(document(report))
    PLOTS.write_text(html.page(report))
    PUBLISHED.write_text(text)


if __name__ == "__main__":
    main()
