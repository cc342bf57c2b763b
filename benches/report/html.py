"""A run as one page with plots: it opens from disk, without a network, and asks nobody for anything."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benches.report import plots
from benches.report.texts import METRICS, SUITES
from benches.report.units import readable

Row = Mapping[str, Any]

#: A median and a 99th percentile of the same calls are shown on one line.
_PAIRS = {
    "sequential_p50": "sequential_p99",
    "p50": "p99",
    "first_routed_call_p50": "first_routed_call_p99",
    "update": "update_worst",
}
_PAIR_TITLES = {
    "sequential_p50": "latency, one call after the other",
    "p50": "latency",
    "first_routed_call_p50": "registered to first call",
    "update": "registered to told",
}
_FAR = {metric: "slowest" if metric == "update" else "p99" for metric in _PAIRS}
#: Of all others, less is better.
_MORE_IS_BETTER = (
    *("calls_per_second", "requests_per_second", "bytes_per_second", "messages_per_second"),
    *("rounds_per_second", "orders_per_second", "events_per_second", "steps_per_second"),
)

_INTRODUCTION = """<p class="soft">Each program alone on one core, what loads it on another, the subjects in
turn, {rounds} rounds of {seconds:g} s. A bar is the median of the rounds, its whisker goes from the least to
the most. Each group of bars has a scale of its own, from 0.</p>"""


def page(report: Row) -> str:
    """Answer with the whole page."""
    figures: Sequence[Row] = report["figures"]
    suites = list(dict.fromkeys(figure["suite"] for figure in figures))
    links = [(suite, SUITES[suite][0]) for suite in suites]
    if report["targets"]:
        links.insert(0, ("targets", "Targets"))
    settings = report["settings"]
    style = (Path(__file__).parent / "page.css").read_text()
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>bascule: performance</title><style>\n{style}</style></head><body>",
        "<h1>bascule: performance</h1>",
        _INTRODUCTION.format(**settings),
    ]
    if settings["quick"]:
        parts.append(
            "<p><strong>A quick run of the harness: its figures mean nothing.</strong></p>"
        )
    chips = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in links)
    parts.append(f"<nav>{chips}</nav>")
    parts += _machine(report["machine"])
    if report["targets"]:
        parts += _targets(report["targets"])
    for suite in suites:
        parts += _suite(suite, [figure for figure in figures if figure["suite"] == suite])
    for heading, said in (("Not measured", report["not_measured"]), ("Failed", report["failed"])):
        if said:
            items = "".join(
                f"<dt>{escape(what)}</dt><dd>{escape(why)}</dd>" for what, why in said.items()
            )
            parts.append(f"<h2>{heading}</h2><figure><dl>{items}</dl></figure>")
    parts.append("</body></html>")
    return "\n".join(parts) + "\n"


def _machine(machine: Row) -> Iterator[str]:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    facts = {
        "memory": f"{machine['memory_gib']} GiB",
        "system": machine["system"],
        "Python": f"{machine['python']}; {packages}",
        "compilers": "; ".join(each for each in (machine["go"], machine["rust"]) if each),
        "servers": "; ".join(machine["servers"]),
        "load": machine["h2load"],
        "measured": f"{machine['measured_at']}, at {machine['commit']}, load {machine['load_average']:.1f}",
    }
    rows = (f"<dt>{name}</dt><dd>{escape(str(fact))}</dd>" for name, fact in facts.items() if fact)
    summary = f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}"
    yield f"<details><summary>{escape(summary)}</summary><dl>{''.join(rows)}</dl></details>"


def _targets(targets: Sequence[Row]) -> Iterator[str]:
    met = sum(target["met"] for target in targets)
    yield '<h2 id="targets">What was to be reached</h2>'
    yield (
        f"<p>{met} of {len(targets)} are met. Each bar begins at its limit: to the right it is better than"
        " that, to the left worse, by another doubling at each thin line.</p>"
    )
    yield '<figure class="wide">'
    for suite in dict.fromkeys(target["suite"] for target in targets):
        yield f'<p class="case">{escape(SUITES[suite][0])}</p>'
        for target in targets:
            if target["suite"] == suite:
                yield _target(target)
    yield "</figure>"


def _target(target: Row) -> str:
    limit, value = target["limit"], target["value"]
    times = value / limit if target["at_least"] else limit / value if value else float("inf")
    sign = "at least" if target["at_least"] else "at most"
    metric = METRICS.get(target["metric"], target["metric"].replace("_", " "))
    name = f"{target['subject']}, {target['case']}: {metric}"
    if target["over"]:
        name += f", to {target['over']}"
        reached, wanted = f"{value:.3g}x", f"{limit:g}x"
    else:
        reached, wanted = (readable(each, target["unit"]) for each in (value, limit))
    plot = plots.margin(min(times, 1e6), told=f"{reached}, {sign} {wanted}")
    kind = "" if target["met"] else "missed"
    return _row(kind, name, plot, f"{reached} <small>{sign} {wanted}</small>")


def _suite(suite: str, figures: Sequence[Row]) -> Iterator[str]:
    title, method = SUITES[suite]
    yield f'<h2 id="{suite}">{escape(title)}</h2><p>{_marked(method)}</p>'
    metrics = dict.fromkeys(figure["metric"] for figure in figures)
    for paired in _PAIRS.values():
        metrics.pop(paired, None)
    for metric in metrics:
        chosen = [figure for figure in figures if figure["metric"] == metric]
        far = _PAIRS.get(metric)
        others = {(f["case"], f["subject"]): f for f in figures if f["metric"] == far}
        yield "<figure>"
        yield _caption(metric, paired=bool(others))
        for case in dict.fromkeys(figure["case"] for figure in chosen):
            group = [figure for figure in chosen if figure["case"] == case]
            yield f'<p class="case">{escape(case)}</p>'
            yield from _pairs(group, others) if others else _bars(group)
        yield "</figure>"
    yield _commands(figures)


def _caption(metric: str, *, paired: bool) -> str:
    better = "more is better" if metric in _MORE_IS_BETTER else "less is better"
    title = METRICS.get(metric, metric.replace("_", " "))
    if paired:
        title = _PAIR_TITLES[metric]
        better = f"dot: median, ring: {_FAR[metric]}; {better}"
    return f"<figcaption><h3>{escape(title)}</h3><span>{better}</span></figcaption>"


def _bars(figures: Sequence[Row]) -> Iterator[str]:
    scale = max(figure["max"] for figure in figures) or 1.0
    for figure in figures:
        median, least, most = (
            readable(figure[n], figure["unit"]) for n in ("median", "min", "max")
        )
        samples = ", ".join(readable(each, figure["unit"]) for each in figure["samples"])
        plot = plots.bar(figure["median"], figure["min"], figure["max"], scale, told=samples)
        text = median if least == most else f"{median} <small>{least} to {most}</small>"
        yield _row(_kind(figure), figure["subject"], plot, text)


def _pairs(figures: Sequence[Row], others: Mapping[tuple[str, str], Row]) -> Iterator[str]:
    pairs = [(figure, others[figure["case"], figure["subject"]]) for figure in figures]
    scale = max(max(near["max"], far["max"]) for near, far in pairs) or 1.0
    for near, far in pairs:
        unit = near["unit"]
        told = ", ".join(readable(each, unit) for each in (*near["samples"], *far["samples"]))
        least, most = min(near["min"], far["min"]), max(near["max"], far["max"])
        plot = plots.span(near["median"], far["median"], least, most, scale, told=told)
        median, end = readable(near["median"], unit), readable(far["median"], unit)
        yield _row(
            _kind(near),
            near["subject"],
            plot,
            f"{median} <small>{_FAR[near['metric']]} {end}</small>",
        )


def _row(kind: str, name: str, plot: str, value: str) -> str:
    return (
        f'<div class="row {kind}"><span class="name">{escape(name)}</span>{plot}'
        f'<span class="value">{value}</span></div>'
    )


def _kind(figure: Row) -> str:
    return "ours" if figure["subject"].startswith("bascule") else ""


def _commands(figures: Iterable[Row]) -> str:
    lines = dict.fromkeys(figure["command"] for figure in figures if figure["command"])
    if not lines:
        return ""
    text = "\n".join(escape(line) for line in lines)
    return f"<details><summary>Commands</summary><pre>{text}</pre></details>"


def _marked(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
