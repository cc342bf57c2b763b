"""Publishes a run: ``python -m benches.report.render [JSON]``.

The JSON is kept in ``benches/report``, ``docs/reference/performance.md`` is written from it, and so
is what stands between the two markers of ``README.md``.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benches.peers import ROOT
from benches.report.units import readable

MARKERS = ("<!-- figures: begin -->", "<!-- figures: end -->")
MEASURED = ROOT / ".build/benches/latest.json"
PUBLISHED = ROOT / "benches/report/latest.json"
PAGE = ROOT / "docs/reference/performance.md"
_METRICS = {
    "calls_per_second": "calls/s",
    "requests_per_second": "requests/s",
    "seconds_per_operation": "one operation",
    "cpu_per_call": "CPU a call",
    "cpu_per_request": "CPU a request",
    "sequential_p50": "p50",
    "sequential_p99": "p99",
    "bytes_per_connection": "memory a connection",
    "bytes_per_second": "throughput",
    "messages_per_second": "messages/s",
    "rounds_per_second": "rounds/s",
    "growth": "growth",
    "p50": "p50",
    "p99": "p99",
    "orders_per_second": "orders/s",
    "cpu_per_order": "CPU an order",
    "events_per_second": "events/s",
    "cpu_per_event": "CPU an event",
    "steps_per_second": "steps/s",
    "cpu_per_step": "CPU a step",
    "first_routed_call_p50": "registered to first call, p50",
    "first_routed_call_p99": "p99 of it",
    "start": "all lists there",
    "start_cpu": "CPU until then",
    "cpu_share": "CPU while nothing changes",
    "requests_at_rest": "requests/s while nothing changes",
    "sockets": "sockets",
    "tasks": "tasks",
    "resident": "memory of the process",
    "bytes_per_watch": "memory a watch",
    "update": "registered to told",
    "update_worst": "the slowest of 3",
}
_SUITES = {
    "server": (
        "Servers",
        (
            "h2load sends a message of three fields with `grpc-timeout`, on so many connections (`-c`) "
            "with so many calls in flight on each (`-m`). A real client has checked the answer before, "
            "and the bytes of the replies are counted after: to HTTP, an error of gRPC is a success."
        ),
    ),
    "client": (
        "Clients",
        (
            "The same call against compiled servers, every reply checked: 100 callers at once, then one "
            "that waits for each reply. CPU is the client's own."
        ),
    ),
    "streams": (
        "Streams and large messages",
        (
            "Calls that stream 1,000 small messages from the server, ten streams that send a message and "
            "wait for its echo, and four callers that have 1 MiB echoed. Servers have a client in Go, "
            "clients a server in Go. Much of what large messages gain is memory that bascule keeps "
            "(decision 009): with the same two settings of glibc in its environment, grpcio.aio needs about "
            "the same CPU for them."
        ),
    ),
    "gateway": (
        "Gateways",
        (
            "`GET /api/v1/users/42` over h2c, to the same user service in Go. bascule verifies a token, "
            "decides two rate limits, writes the access log and counts; grpc-gateway does none of this."
        ),
    ),
    "memory": (
        "Memory",
        (
            "Resident memory of the server for each connection that has made one call and is idle now, "
            "and by how much a process grows while a long stream passes through it."
        ),
    ),
    "discovery": (
        "Discovery",
        (
            "A real Consul of one server beside it on the same cores. 100 times, a new instance is "
            "registered and called through a channel that waits for it; then one process watches many "
            "services and instances are added to some of them. Sockets count those for requests and "
            "those of blocking queries; tasks leave out the program's own, one that follows each watch."
        ),
    ),
    "sagas": (
        "Sagas",
        (
            "Runs of ten steps that do nothing, with a durable log in SQLite, one at a time and ten at a "
            "time. DBOS has every commit on the disk; bascule's sagas outlive the process by default, "
            "and with `fsync` the machine. CPU is the process's."
        ),
    ),
    "orders": (
        "Orders",
        (
            "`CreateOrder` of the reference shop: four services in one process that call each other over "
            "TCP, each with its own database, a durable saga of four steps, the outbox and its relay, and "
            "logs. An order has two products and a key that makes it repeatable. MariaDB and the customers "
            "share the other core. CPU is the shop's."
        ),
    ),
    "events": (
        "Events",
        (
            "From the outbox in SQLite by one relay through a real Redis to one consumer with an inbox in "
            "SQLite, all of bascule in one process. First an outbox that is full is drained; then events "
            "are stored one after the other, each timed from before its transaction until after its effect's."
        ),
    ),
    "codec": ("Codec", "betterproto2's message classes, and google's for scale. CPU time."),
    "policy": ("Policies", "Limits that are never reached, circuits that stay closed. CPU time."),
    "tracing": (
        "Tracing",
        "What it adds to a call, beside OpenTelemetry's own API. One core's time, without what sends spans.",
    ),
    "transcode": ("Transcoding", "Routes matched, JSON to protobuf and back. CPU time."),
}
_INTRODUCTION = """\
# Performance

`make bench` measures all of this in one run: every program alone on one core, what loads it on
another, the subjects in turn, {rounds} rounds of {seconds:g} s. Figures are medians, with the least
and the most in brackets; ratios are between figures of the same run. bascule runs with deadlines,
cancel scopes, an interceptor, metrics and a circuit breaker on; the others as their documentation
sets them up. The commands and all samples stand in
[latest.json](../../benches/report/latest.json).

The peers in Go and Rust are built on the first run, if `go` and `cargo` are there; `h2load` comes
with nghttp2 (`apt-get install nghttp2-client`). What is missing is named, and left out.
`.venv/bin/python -m benches --only server,client` measures some suites, `--quick` only shows that
they run, and `.venv/bin/python -m benches.report.render` writes this page from the last run.

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
        title, method = _SUITES[suite]
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
    heads = ["case", "", *(_METRICS.get(metric, metric.replace("_", " ")) for metric in metrics)]
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
    metric = _METRICS.get(target["metric"], target["metric"].replace("_", " "))
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
    PUBLISHED.write_text(text)


if __name__ == "__main__":
    main()
